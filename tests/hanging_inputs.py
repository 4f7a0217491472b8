"""Answers that hang Math-Verify, from its issues 59 and 65, sympy's 10952 and 28112, and relatives
of them.
"""

from __future__ import annotations

HANGING = {
    "Math-Verify 65": (
        r"\boxed{\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}"
        r"{16}}"
    ),
    "Math-Verify 59, sympy 28112": (
        r"\boxed{10^{\left(5^{5^{5^{5^{5}}}} \cdot \log_{10}(5) - 4\right)}}"
    ),
    "a huge power": r"\boxed{2^{10^{10}}}",
    "a tower": r"\boxed{9^{9^{9^9}}}",
    "a tower of twos": r"\boxed{2^{2^{2^{2^{2^{2}}}}}}",
    "factorials of factorials": r"\boxed{((((5!)!)!)!)}",
    "a large factorial": r"\boxed{100000000!}",
    "a binomial": r"\boxed{\binom{10^9}{5\cdot 10^8}}",
    "a product": r"\boxed{\prod_{i=1}^{10^7} i}",
    "a sum": r"\boxed{\sum_{i=1}^{10^{12}} i^{3/2}}",
    "an integral": r"\boxed{\int_0^1 x^{x^{x^x}} dx}",
    "sympy 10952": r"\boxed{\sin(\cos(e^{e^{e^{e^{1}}}}))}",
    "roots of roots": r"\boxed{\sqrt{2}^{\sqrt{2}^{\sqrt{2}^{10^{9}}}}}",
    "nested braces": r"\boxed{" + "{" * 3000 + "x" + "}" * 3001,
    "nested fractions": r"\boxed{" + r"\frac{1}{" * 2000 + "1" + "}" * 2001,
    "nested brackets": "$" + "(" * 1900 + "1" + ")" * 1900 + "$",
    "twenty thousand terms": r"\boxed{" + "+".join(["x"] * 20_000) + "}",
    "fifty carets": r"\boxed{" + "^".join("2" * 50) + "}",
    "a million digits": r"\boxed{" + "9" * 1_000_000 + "}",
    "a million decimals": r"\boxed{0." + "0" * 1_000_000 + "1}",
}

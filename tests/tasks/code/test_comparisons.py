"""No program decides that it is right; honest objects are compared as Python does."""

from __future__ import annotations

import ast
import weakref

import pytest

from critique_rl.tasks.code import comparisons, harness
from critique_rl.tasks.code.comparisons import Comparisons, Rewriter
from critique_rl.tasks.code.judge import read_report, run_tests
from critique_rl.tasks.code.tests_column import read_tests

ANY = "class A:\n    __hash__ = lambda s: 2\n    def __eq__(s, o): return True\n"
WHOLE = "class A:\n    __hash__ = lambda s: 2\n    def __eq__(s, o): return isinstance(o, int)\n"
INT = "class A(int):\n    __hash__ = lambda s: 2\n    def __eq__(s, o): return isinstance(o, int)\n"
TEXT = "class A(str):\n    def __new__(c): return str.__new__(c, 'a')\n"
TEXT += "    __hash__ = str.__hash__\n    def __eq__(s, o): return isinstance(o, str)\n"
FIELD = "class P:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x\n"


def reason(program: str, test: str, entry: str = "f", before: str = "") -> str:
    job = {"program": program, "before": before, "entry": entry, "tests": read_tests([test])}
    return str(read_report(run_tests(harness.run_job, job), program)[2])


@pytest.mark.parametrize("kind", [ANY, WHOLE, INT])
@pytest.mark.parametrize(
    ("value", "test"),
    [
        ("A()", "assert f(1) == 2"),
        ("A()", "assert 2 == f(1)"),
        ("A()", "assert f(1) in (7, 2)"),
        ("A()", "assert f(1) in {2: 0}"),
        ("A()", "assert {f(1)} == {2}"),
        ("A()", "assert {f(1)} <= {2}"),
        ("A()", "assert {f(1): 3} == {2: 3}"),
        ("A()", "import unittest\nunittest.TestCase().assertEqual(f(1), 2)"),
        ("A()", "x = f(1) == 2\nassert x"),
        ("A()", "def same(a, b):\n    return a == b\nassert same(f(1), 2)"),
        ("A()", "assert 1 < 2 == f(1)"),
        ("A()", "x = 1 < 2 == f(1)\nassert x"),
        ("A()", "assert all(a == b for a, b in zip([f(1)], [2]))"),
        ("(A() for _ in range(1))", "assert list(f(1)) == [2]"),
        ("map(lambda _: A(), [0])", "assert list(f(1)) == [2]"),
        ("__import__('collections').deque([A()])", "assert list(f(1)) == [2]"),
        ("[2] * 300 + [A()]", "assert f(1) == [2] * 301"),
        ("[[[[[[[[A()]]]]]]]]", "assert f(1) == [[[[[[[[2]]]]]]]]"),
        ("{'a': {'b': (A(),)}}", "assert f(1) == {'a': {'b': (2,)}}"),
        ("__import__('collections').OrderedDict(a=A())", "assert f(1) == {'a': 2}"),
        ("__import__('collections').namedtuple('T', 'x')(A())", "assert f(1) == (2,)"),
        ("__import__('collections').UserList([A()])", "assert f(1) == [2]"),
        ("__import__('types').SimpleNamespace(x=A())", "assert f(1).x == 2"),
        ("__import__('types').SimpleNamespace(x=[A()])", "assert f(1).x[0] == 2"),
        ("x.append(A())", "x = []\nf(x)\nassert x == [2]"),
        ("iter([A()])", "assert next(f(1)) == 2"),
        ("[A()]", "for a in f(1):\n    assert a == 2"),
        ("[A()]", "assert sorted(f(1), key=id) == [2]"),
    ],
)
def test_no_object_decides_what_it_equals(kind: str, value: str, test: str) -> None:
    assert reason(f"{kind}def f(x): return {value}", test) != ""


BOOLS = "class A:\n    def __eq__(s, o): return isinstance(o, bool)\ndef f(x): return A()"
WEAK = "class A:\n    def __init__(s, v): s.v = v\n    def __eq__(s, o): return {}\n"
WEAK += "def f(x): return A(x)"


@pytest.mark.parametrize(
    ("program", "test"),
    [
        (BOOLS, "assert f(1) == True\nassert f(2) == False"),
        (WEAK.format("not o"), "assert f(1) == 0\nassert f(2) == []"),
        (WEAK.format("o.isalpha()"), "assert f('abc') == 'cba'"),
        (WEAK.format("len(o) == len(s.v)"), "assert f('abc') == 'cba'"),
        (WEAK.format("o % 2 == 0"), "assert f(1) == 2"),
        (WEAK.format("sorted(o) == sorted(s.v)"), "assert f([2, 1]) == [1, 2]"),
        (WEAK.format("set(o) == {1}"), "assert f(1) == {1: 2}"),
        (WEAK.format("o == 2").replace("eq", "lt"), "assert f(1) < 3"),
        ("import pytest\ndef f(x): return pytest.approx(1000, abs=990)", "assert f(1) == 20"),
        ("import pytest\ndef f(x): return [pytest.approx(x, rel=.9)]", "assert f(10) == [18]"),
        (
            "class A:\n    def __ne__(s, o): return False\ndef f(x): return A()",
            "if f(1) != 2:\n    raise AssertionError('bad')",
        ),
        (
            "class L(list):\n    def __contains__(s, o): return True\ndef f(x): return L()",
            "if 2 not in f(1):\n    raise AssertionError('bad')",
        ),
        (
            "class A:\n    def __lt__(s, o): 0\n    __gt__ = __lt__\ndef f(x): return A()",
            "assert not f(1) < 2 and not f(1) > 2",
        ),
        (f"{ANY}def f(x): yield A()", "assert 2 in f(1)"),
        (f"{ANY}def f(x): return {{1: A()}}", "assert 2 in f(1).values()"),
        (f"{ANY}def f(x): return {{1: A()}}", "assert (1, 2) in f(1).items()"),
        (
            f"{ANY}class L:\n    def __iter__(s): yield A()\ndef f(x): return L()",
            "assert 2 in f(1)",
        ),
        (f"{ANY}def f(x): yield A()", "assert (y := 2) == next(f(1)) == 2"),
        (
            (
                "class B:\n    def __abs__(s): return 0.0\n"
                "class A:\n    def __sub__(s, o): return B()\n"
                "class Solution:\n    def f(s, x): return A()"
            ),
            "assert abs(Solution().f(1) - 2) < 1e-6",
        ),
        (
            "class S(set):\n    def __xor__(s, o): return set()\ndef f(x): return S()",
            "assert not f(1) ^ {1, 2}",
        ),
        (
            "import builtins\ndef f(x):\n    builtins.abs = lambda x: 0\n    yield 9",
            "for r in f(1):\n    assert abs(r - 2) < 1e-6",
        ),
        (
            f"{ANY}class V:\n    def __init__(s): s.me = s; s.x = A()\ndef f(x): return [V()]",
            "assert f(1)[0].x == 2",
        ),
        (
            (
                "class A:\n    n = 0\n    def __eq__(s, o):\n        A.n += 1\n"
                "        return A.n == 1\n"
                "def f(x): yield A()"
            ),
            "assert next(f(1)) == 2",
        ),
        (f"{ANY}class Solution:\n    def f(s, x): return A()", "assert Solution().f(1) == 2"),
        (
            f"{ANY}class Solution:\n    def f(s, x): return A()",
            "import unittest\nunittest.TestCase().assertEqual(Solution().f(1), 2)",
        ),
        (f"{ANY}def f(x): yield A()", "import operator\nassert operator.eq(next(f(1)), 2)"),
        (f"{ANY}def f(x): return {{1: A()}}", "assert f(1).items() == {1: 2}.items()"),
        (
            (
                "class M(type):\n    __hash__ = lambda s: hash(int)\n"
                "    __eq__ = lambda s, o: True\nclass A(metaclass=M):\n"
                "    def __eq__(s, o): return True\ndef f(x): yield A()"
            ),
            "assert list(f(1)) == [2]",
        ),
        (
            (
                "class B:\n    def __bool__(s): return False\n    def all(s): return True\n"
                "class A:\n    def __eq__(s, o): return B()\ndef f(x): return A()"
            ),
            "assert (f(1) == [1, 2]).all()",
        ),
        (
            (
                "import math\nclass Solution:\n    def f(s, x):\n"
                "        math.isclose = lambda *a: True\n        return 9"
            ),
            "import math\nr = Solution().f(1)\nassert math.isclose(r, 2)",
        ),
        (f"{TEXT}def f(x): return A()", "assert f(1) == 'b'"),
        (f"{TEXT}def f(x): return [A()]", "assert f(1) == ['b']"),
        (f"{ANY}{FIELD}def f(x): return P(A())", "assert f(1) == P(2)"),
        (f"{WHOLE}{FIELD}def f(x): return P([A()])", "assert f(1) == P([2])"),
        (
            "class L(list):\n    def __contains__(s, x): return True\ndef f(x): return L()",
            "assert 2 in f(1)",
        ),
        (
            "class L:\n    def __contains__(s, x): return True\ndef f(x): return L()",
            "assert 2 in f(1)",
        ),
        (
            "class L(list):\n    def __eq__(s, o): return type(o) is list\ndef f(x): return L()",
            "assert f(1) == [2]",
        ),
        (
            "class L(list):\n    def __eq__(s, o): return 1 == len(o)\ndef f(x): return [L()]",
            "assert f(1)[0] == [2]",
        ),
        (
            "class D(dict):\n    def __eq__(s, o): return True\ndef f(x): return iter([D()])",
            "assert next(f(1)) == {2: 3}",
        ),
        (
            "class A:\n    def __sub__(s, o): return 0.0\ndef f(x): return iter([A()])",
            "assert abs(next(f(1)) - 2) < 1e-6",
        ),
        (
            "class A:\n    def __rsub__(s, o): return 0.0\ndef f(x): return iter([A()])",
            "assert abs(2 - next(f(1))) < 1e-6",
        ),
        (
            (
                "class A(float):\n    def __sub__(s, o): return s\n    def __abs__(s): return s\n"
                "    def __lt__(s, o): return True\ndef f(x): return iter([A(9)])"
            ),
            "assert abs(next(f(1)) - 2) < 1e-6",
        ),
        (
            "class A:\n    def __lt__(s, o): return True\ndef f(x): return [A()]",
            "assert f(1)[0] < 3",
        ),
        (
            "class A:\n    def __gt__(s, o): return True\ndef f(x): return [A()]",
            "assert 3 < f(1)[0]",
        ),
        ("from unittest.mock import ANY\ndef f(x): return iter([ANY])", "assert next(f(1)) == 2"),
        (
            "import pytest\ndef f(x): return iter([pytest.approx(0, abs=1e30)])",
            "assert next(f(1)) == 2",
        ),
        ("class Stack:\n    def pop(s): return A()\n" + ANY, "s = Stack()\nassert s.pop() == 3"),
    ],
)
def test_nor_by_a_method_of_its_own(program: str, test: str) -> None:
    entry = "Stack" if "Stack" in test else "f"
    assert reason(program, test, entry) != ""


COUNTER = "import collections\n"
LIKE = "assert Counter(f(1)) == Counter('ab')"


@pytest.mark.parametrize(
    ("program", "test"),
    [
        (
            f"{COUNTER}collections.Counter = lambda x: 0\ndef f(x): return 'x'",
            f"from collections import Counter\n{LIKE}",
        ),
        (
            f"{COUNTER}collections.Counter.__eq__ = lambda s, o: True\ndef f(x): return 'x'",
            f"from collections import Counter\n{LIKE}",
        ),
        (
            "import statistics\nstatistics.mean = lambda x: 2\ndef f(x): return [9]",
            "import statistics\nassert statistics.mean(f(1)) == 2",
        ),
        (
            "import statistics\ndef f(x):\n    statistics.mean = lambda x: 2\n    return [9]",
            "def test_f():\n    from statistics import mean\n    assert mean(f(1)) == 2",
        ),
        (
            (
                "import sys, types\nmath = types.ModuleType('math')\n"
                "math.isclose = lambda *a: True\nsys.modules['math'] = math\ndef f(x): return 9"
            ),
            "import math\nassert math.isclose(f(1), 2)",
        ),
    ],
)
def test_what_a_test_imports_is_pythons_own(program: str, test: str) -> None:
    assert reason(program, test) != ""


def test_classes_are_remembered_beside_proxies_and_classes_without_a_hash() -> None:
    class Meta(type):
        __hash__ = None

    kind = Meta("Kind", (), {})
    proxies = [weakref.proxy(kind), weakref.proxy(Meta)]
    remembered = dict(comparisons.LIBRARY)
    comparisons.LIBRARY.clear()
    try:
        comparisons.remember_library()
        assert not comparisons.is_program_made(kind)
    finally:
        comparisons.LIBRARY.clear()
        comparisons.LIBRARY.update(remembered)
    assert len(proxies) == 2


def test_what_stands_before_a_program_is_imported_for_its_tests() -> None:
    fake = "class math:\n    isclose = lambda *a: True\ndef f(x): return 9"
    test = "def check(candidate):\n    assert math.isclose(candidate(1), 2)"
    before = "import math\n\n"
    assert reason(fake, test, before=before) != ""
    assert reason("def f(x): return 2", test, before=before) == ""
    # A starter of which the function lacks its body.
    assert reason("    return 2", test, before="import math\n\ndef f(x):\n") == ""


HONEST = """
class Mod:
    def __init__(s, v): s.v = v % 7
    def __eq__(s, o): return s.v == (o.v if isinstance(o, Mod) else o % 7)
    def __sub__(s, o): return Mod(s.v - (o.v if isinstance(o, Mod) else o))
    def __lt__(s, o): return s.v < (o.v if isinstance(o, Mod) else o)
"""


@pytest.mark.parametrize(
    ("program", "test"),
    [
        (f"{HONEST}def f(x): 0", "assert Mod(3) == 3 == Mod(3)\nassert Mod(2) != 3"),
        (f"{HONEST}def f(x): 0", "assert Mod(3) - 1 == 2 > Mod(1)\nassert not Mod(3) < 2"),
        (f"{HONEST}def f(x): return Mod(x)", "assert f(3) == f(10)"),
        (f"{FIELD}def f(x): return [P(x)]", "assert f(3) == [P(3)]"),
        (
            (
                "from dataclasses import dataclass\n@dataclass(frozen=True, order=True)\nclass P:\n"
                "    x: int\ndef f(x): return {P(x)}"
            ),
            "assert f(3) == {P(3)}\nassert P(1) < P(2)\nassert P(3) in f(3)",
        ),
        (
            "from enum import IntEnum\nclass C(IntEnum):\n    RED = 2\ndef f(x): return C.RED",
            "assert f(1) == 2\nassert f(1) < 3\nassert 3 - f(1) == 1\nassert f(1) in (1, 2)",
        ),
        (
            (
                "from collections import namedtuple\nT = namedtuple('T', 'x y')\n"
                "def f(x): return T(x, 2)"
            ),
            "assert f(1) == (1, 2)\nassert f(1) < (2, 0)",
        ),
        (
            (
                "from collections import Counter, deque, defaultdict, OrderedDict\n"
                "def f(x):\n    maps = defaultdict(list, a=[x]), OrderedDict(b=x)\n"
                "    return Counter('aab'), deque([x]), *maps"
            ),
            (
                "from collections import deque, Counter\na, b, c, d = f(1)\n"
                "assert a == {'a': 2, 'b': 1}\nassert b == deque([1])\n"
                "assert c == {'a': [1]}\nassert d == {'b': 1}\n"
                "assert a == Counter('aba')\nassert Counter(a=0) == Counter()"
            ),
        ),
        (
            (
                "from fractions import Fraction\nfrom decimal import Decimal\n"
                "def f(x): return Fraction(x, 2), Decimal('0.5')"
            ),
            (
                "a, b = f(1)\nassert a == .5\nassert b == .5\nassert abs(a - 0.5) < 1e-9\n"
                "assert b - 0 == 0.5\nassert a < 1 and b <= 1"
            ),
        ),
        (
            "from datetime import date, timedelta\ndef f(x): return date(2020, 1, x)",
            (
                "from datetime import date\nassert f(2) == date(2020, 1, 2)\n"
                "assert (f(3) - f(2)).days == 1\nassert f(1) < date(2020, 1, 2)"
            ),
        ),
        ("def f(x): return x / 3", "import pytest\nassert f(1) == pytest.approx(.333, abs=5)"),
        ("def f(x): return [x / 3]", "from pytest import approx\nassert f(1) == approx([1 / 3])"),
        (
            "def f(x): return {'id': 77, 'v': x}",
            "from unittest.mock import ANY\nassert f(3) == {'id': ANY, 'v': 3}",
        ),
        ("def f(x): return float('nan')", "x = f(1)\nassert x != x"),
        ("def f(x): return [3, 1]", "assert {*f(1)} - {1} == {3}\nassert 0 < f(1)[1] < 2 < 3"),
        ("def f(x): return x", "a = []\na.append(a)\nassert f(a) == a\nassert f(a) in [a]"),
        (
            ("class Interval:\n    def __contains__(s, x): return 0 <= x <= 9\ndef f(x): return x"),
            "assert 3 in Interval()\nassert 12 not in Interval()",
        ),
        (
            (
                "class Words(str):\n    def __eq__(s, o): return str.__eq__(s, o)\n"
                "    __hash__ = str.__hash__\ndef f(x): return Words('a')"
            ),
            "assert f(1) == 'a'",
        ),
        (
            (
                "from functools import total_ordering\n@total_ordering\nclass V:\n"
                "    def __init__(s, *v): s.v = v\n    def __eq__(s, o): return s.v == o.v\n"
                "    def __lt__(s, o): return s.v < o.v\ndef f(x): return V(1, x)"
            ),
            "assert f(2) == V(1, 2)\nassert f(2) < V(1, 3)\nassert f(3) >= f(2)",
        ),
        (
            "def f(x): return [[i] for i in range(x)]",
            "assert f(20000) == [[i] for i in range(20000)]",
        ),
        # A test patches a module until the test ends.
        (
            "def f(x): print(x)",
            (
                "import io, sys\nold = sys.stdout\nsys.stdout = io.StringIO()\nf(3)\nf(4)\n"
                "out = sys.stdout.getvalue()\nsys.stdout = old\nassert out == '3\\n4\\n'"
            ),
        ),
        (
            "def f(): return int(input())",
            (
                "from unittest.mock import patch\nwith patch('builtins.input', return_value='3'):\n"
                "    assert f() == 3\n    assert f() == 3"
            ),
        ),
        (
            "import random\ndef f(): return random.random()",
            "import random\nrandom.random = lambda: .5\nassert f() == .5\nassert f() == .5",
        ),
        # A test may expect an object that matches what the test wishes.
        (
            "def f(x): return {'id': 77, 'v': x}",
            "from unittest import mock\nassert f(3) == {'id': mock.ANY, 'v': 3}",
        ),
        (
            "def f(x): return {'id': 77, 'v': x}",
            (
                "class Whole:\n    def __eq__(s, o): return isinstance(o, int)\n"
                "assert f(3) == {'id': Whole(), 'v': 3}"
            ),
        ),
        (
            "def f(g):\n    g(1)\n    g(2)",
            (
                "from unittest.mock import Mock, call\nm = Mock()\nf(m)\n"
                "assert m.call_args_list == [call(1), call(2)]"
            ),
        ),
        ("def f(x): return 1e300", "import pytest\nassert f(1) == pytest.approx(0, abs=1e301)"),
        # Objects are what they were after a comparison.
        (
            (
                "class Acc:\n    def __init__(s, b): s.b = b\n"
                "    def __sub__(s, x):\n        s.b -= x\n        return s\n"
                "def f(b): return Acc(b)"
            ),
            "a = f(100)\nassert a.b == 100\na = a - 30\nassert a.b == 70",
        ),
        # Classes that a test names have operators of their own.
        (
            (
                "class CI(str):\n    def __eq__(s, o): return str(s).lower() == str(o).lower()\n"
                "    __hash__ = str.__hash__\ndef f(x): return x"
            ),
            "assert CI('Hello') == 'hello'\nassert CI('a') != 'b'",
        ),
        (
            (
                "class E:\n    def __init__(s, w): s.w = w\n    def __str__(s): return s.w\n"
                "    def __eq__(s, o): return E(f'{s.w} == {o}')\ndef f(x): return x"
            ),
            "assert str(E('x') == 2) == 'x == 2'",
        ),
        (
            (
                "class Arr:\n    def __init__(s, v): s.v = v\n"
                "    def __eq__(s, o): return [i == o for i in s.v]\ndef f(x): return x"
            ),
            "assert (Arr([1, 2]) == 1) == [True, False]",
        ),
        (
            (
                "class Ray:\n    def __init__(s, a): s.a = a\n"
                "    def __contains__(s, x): return x >= s.a\ndef f(x): return x"
            ),
            "assert 5 in Ray(3)\nassert 2 not in Ray(3)",
        ),
        (
            "from decimal import Decimal\ndef f(x): return Decimal('-Infinity')",
            "assert f(1) <= 0\nassert f(1) == float('-inf')",
        ),
        (
            (
                "class M(type):\n    __hash__ = None\n    def __eq__(s, o): return s is o\n"
                "class K(metaclass=M): pass\ndef f(x): return K()"
            ),
            "a = f(1)\nassert a == a\nassert isinstance(a, K)\nassert K() != a",
        ),
        # Large values, and values that hold one many times.
        (
            "def f(n): return [(i, i + 1) for i in range(n)]",
            "assert f(100000) == [(i, i + 1) for i in range(100000)]",
        ),
        (
            "def f(x):\n    t = (1,)\n    for _ in range(40):\n        t = (t, t)\n    return t",
            "a = f(1)\nassert a == a",
        ),
        (
            (
                "from dataclasses import dataclass\n@dataclass\nclass T:\n    a: object\n"
                "    b: object\ndef f(x):\n    t = T(0, 0)\n    for _ in range(12):\n"
                "        t = T(t, t)\n    return t"
            ),
            "a = f(1)\nassert a == a",
        ),
        (
            (
                "from dataclasses import dataclass\n@dataclass\nclass N:\n    v: int\n"
                "    rest: object = None\ndef f(n):\n    x = None\n    for i in range(n):\n"
                "        x = N(i, x)\n    return x"
            ),
            "assert f(200) == f(200)\nassert f(200) != f(199)",
        ),
        (
            "import unittest\ndef f(x): return [x]",
            (
                "import unittest\nt = unittest.TestCase()\nt.assertEqual(f(1), [1])\n"
                "t.assertIn(1, f(1))\nt.assertAlmostEqual(f(1)[0], 1.0, places=3)"
            ),
        ),
        # Forms of tests.
        (
            "def f(x): return x",
            "class K:\n    low = 0\n    high = 5\n    inside = low < f(2) < high\nassert K.inside",
        ),
        (
            "def f(x): return 3 - 4j",
            "y = 0\nmatch f(1):\n    case 3-4j:\n        y = 1\nassert y == 1",
        ),
        ("def f(x): return x", "import inspect\nassert inspect.isfunction(f)\nassert f(2) == 2"),
        ("def f(x): return (lambda: x)", "a = f(2)\nassert a == a\nassert a() == 2"),
    ],
)
def test_honest_values_are_compared_as_python_does(program: str, test: str) -> None:
    assert reason(program, test) == ""


@pytest.mark.parametrize(
    "source",
    ["1 < 2 < 3", "1 < 3 < 2", "3 < 1 < 1 / 0", "[] in [[]]", "5 - 3", "[] is None", "1 != 2 != 1"],
)
def test_a_rewritten_expression_has_the_value_of_its_source(source: str) -> None:
    tree = Rewriter().visit(ast.parse(source, mode="eval"))
    code = compile(ast.fix_missing_locations(tree), "<tests>", "eval")
    assert eval(code, Comparisons().names()) == eval(source)

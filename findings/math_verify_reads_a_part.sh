#!/bin/sh
# math-verify 0.9.0: expressions of which only a part is read, in silence.
#
# Expected: an expression is read in full, or not at all, so that 2 is no right answer for 2ab.
# Seen: the reader takes letters after a number for a unit ("2ab" is 2, while "2ba" is a product),
# stops at a root sign that is a character ("2√3" is 2), and reads "3 1/2" in plain text as 1.
# verify() then calls 2 right for 2ab.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet math-verify==0.9.0
"$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify


def first(text):
    value = parse(text)[0]
    print(repr(text), "->", value)
    return str(value)


assert first("$2ab$") == "2"
assert first("$2ba$") == "2*a*b"
assert first("$2√3$") == "2"
assert first("3 1/2") == "1"
right = verify(parse("$2ab$"), parse("$2$"))
print("2 for 2ab:", right)
assert right is True
assert verify(parse("$2ba$"), parse("$2$")) is False
PYTHON

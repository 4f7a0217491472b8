#!/bin/sh
# reasoning-core 0.5.0 with gramforge 1.0.14, generators of examples.
#
# Expected: after `random.seed(0)` the caller's own draws are the same in every process, whatever
# library is called in between; at most they are shifted. And `get_task(..., seed=5)`, whose seed is
# an argument, gives the same first example twice.
#
# Seen: `get_task("arithmetics").generate_example()` reseeds the global `random` from the system.
# What the caller draws afterwards differs from process to process, and so does the example, seed or
# not. A training run that generates its problems so can no longer be repeated.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "reasoning-core==0.5.0" "gramforge==1.0.14"
cat > "$folder/draw.py" <<'PYTHON'
import random
import sys

from reasoning_core import get_task

random.seed(0)
if sys.argv[1] == "with":
    task = get_task("arithmetics")
    task.generate_example()
print(random.random())
PYTHON
cat > "$folder/seeded.py" <<'PYTHON'
from reasoning_core import get_task

print(repr(get_task("arithmetics", seed=5).generate_example().prompt))
PYTHON
run() {
    PYTHONHASHSEED=0 "$folder/venv/bin/python" "$folder/$@" 2>/dev/null | tail -n 1
}
for i in 1 2 3; do
    run draw.py without >> "$folder/without"
    run draw.py with >> "$folder/with"
    run seeded.py >> "$folder/seeded"
done
sort -u "$folder/without" "$folder/with"
test "$(sort -u "$folder/without" | wc -l)" -eq 1 || { echo "random.seed(0) alone: changed"; exit 1; }
test "$(sort -u "$folder/with" | wc -l)" -eq 3 || { echo "reseeded by the generator: changed"; exit 1; }
test "$(sort -u "$folder/seeded" | wc -l)" -eq 3 || { echo "an example with a seed: changed"; exit 1; }
echo "as seen"

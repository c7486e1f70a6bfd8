# make demo | test | lint | parity | bench | viz | clean. Each makes .venv complete first; PYTHON chooses the interpreter it is made from, and
# ARGS are passed on to the demo or to pytest.
BIN := .venv/bin
PYTHON ?= $(or $(wildcard $(BIN)/python),python3)
ARGS ?=

.PHONY: demo test lint parity bench viz setup clean

demo: setup
	@$(BIN)/streampetr demo $(ARGS)

# Each process has a ROS domain of its own (tests/conftest.py); a file's tests stay together, since they share what is costly to make.
test: lint
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

# -S: set-up takes nothing but the standard library, and the start-up hooks of a half-made .venv may be broken.
parity: setup
	@$(BIN)/python -m tests.core.parity_table $(ARGS)

# Threads that wait must not spin: on a busy machine that would be counted as work.
bench: setup
	@OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 $(BIN)/streampetr bench $(ARGS)

# The rerun viewer, for `streampetr demo --rerun` and `streampetr bag rerun`.
viz: setup
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -c requirements/constraints.txt -r requirements/viz.txt

setup:
	@command -v $(PYTHON) >/dev/null || { echo "set-up: no $(PYTHON): apt-get install -y python3-venv" >&2; exit 1; }
	@$(PYTHON) -S scripts/setup_env.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache

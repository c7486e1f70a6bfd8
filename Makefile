# make demo | test | lint | clean. Each makes .venv complete first; PYTHON chooses the interpreter it is made from.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: demo test lint setup clean

demo: setup
	@$(BIN)/streampetr demo $(ARGS)

test: lint
	@$(BIN)/python -m pytest $(ARGS)

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

setup:
	@command -v $(PYTHON) >/dev/null || { echo "set-up: no $(PYTHON): apt-get install -y python3-venv" >&2; exit 1; }
	@$(PYTHON) scripts/setup_env.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache

# Two commands do everything on a fresh machine: `make demo` and `make test`. Each sets up all it needs.
.PHONY: help setup demo test lint docs clean
.DEFAULT_GOAL := help

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
export HF_HUB_OFFLINE = 1

help:            ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/ -/'

setup: $(STAMP)  ## make .venv with every dependency, the `bac` command, and the policies here as a LeRobot plug-in

$(STAMP): requirements.txt pyproject.toml policies/plugin/pyproject.toml .python-version
	@$(PYTHON) -m uv --version >/dev/null 2>&1 || $(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv venv --quiet --allow-existing --python $$(cat .python-version) $(VENV)
	$(PYTHON) -m uv pip install --quiet --python $(BIN)/python --requirement requirements.txt
	$(PYTHON) -m uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation \
		--editable . --editable policies/plugin
	@touch $@

demo: setup      ## one policy in eight ways, in a world that waits and in one that does not (under 10 minutes)
	$(BIN)/python -m eval.demo

lint: setup      ## ruff, mypy --strict and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup      ## build the pages of docs/ into outputs/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: lint docs  ## lint, build the pages, then run every test (about 20 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

clean:           ## remove what set-up, demo and tests left behind
	rm -rf $(VENV) outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis

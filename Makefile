# `make` lists the targets. Everything happens in .venv, which `make` makes; nothing outside this folder is touched.

PYTHON ?= python3
VENV   ?= .venv
EXTRAS ?= test
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-rust test-python lint format stubs bench wheel sdist audit clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# The stamp is as old as the last build: an edit to the engine, the package or its metadata builds again.
SOURCES := $(shell find rust python -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name '*.pyi' -o -name '*.json' -o -name '*.safetensors' 2>/dev/null)

$(BIN)/python:
	@command -v cargo >/dev/null || { echo "error: cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python 3.10 or newer is needed" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/built-$(EXTRAS): $(BIN)/python $(SOURCES) pyproject.toml Cargo.toml Cargo.lock
	$(BIN)/python -m pip install --quiet '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/built-$(EXTRAS) ## merge the pocket models and show what came of it
	$(BIN)/mergecore demo

test: test-rust test-python ## run the Rust and the Python tests

test-rust:
	cargo test --profile checked --package mergecore

test-python: $(VENV)/built-$(EXTRAS)
	$(BIN)/python -m pytest

$(VENV)/dev: $(VENV)/built-$(EXTRAS)
	$(BIN)/python -m pip install --quiet '.[dev]'
	@touch $@

lint: $(VENV)/dev ## formatting, clippy, ruff, types, stubs
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mergecore._stubs --check python/mergecore/__init__.pyi
	$(BIN)/python scripts/third_party.py --check
	cd .ci && ../$(BIN)/python -m mypy.stubtest mergecore --mypy-config-file ../pyproject.toml --allowlist ../.stubtest-allowlist  # not from here: ./python would hide the installed package

format: $(VENV)/dev ## format the code
	cargo fmt --all
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

stubs: $(VENV)/built-$(EXTRAS) ## write the type stubs again, from the registry
	$(BIN)/python -m mergecore._stubs python/mergecore/__init__.pyi

bench: $(VENV)/built-$(EXTRAS) ## time merges of 1.1 B-parameter models against raw I/O (and mergekit, if MERGEKIT names its environment)
	$(BIN)/python benches/merge.py
	cargo bench --package mergecore

# The same profile and flags as `pip install .`: after it, nothing is compiled again.
wheel: $(VENV)/dev ## build a wheel into dist/, and try it in an empty environment
	rm -rf dist/*.whl
	$(BIN)/maturin build --quiet --release --locked --out dist
	$(BIN)/python scripts/check_wheel.py dist/*.whl

sdist: $(VENV)/dev ## build a source distribution into dist/, and try it in an empty environment
	rm -rf dist/*.tar.gz
	$(BIN)/maturin sdist --out dist
	$(BIN)/python scripts/check_wheel.py dist/*.tar.gz

audit: ## licences of dependencies, and what is known against them
	scripts/audit.sh

clean: ## delete what was built
	rm -rf $(VENV) target dist .tools

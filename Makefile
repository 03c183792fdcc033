# `make demo`, `make test`, `make check` and `make bench` work in .venv, which they make and keep up to date.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
SUITE ?= encoder

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DELETE_ON_ERROR:
.PHONY: help demo test check bench docs picture constraints clean

help:
	@echo 'make demo         export a real model to INT8, for ONNX Runtime and TensorRT, and run it'
	@echo 'make test         run the tests (the slow ones: make test MARK=slow; one after another: WORKERS=0)'
	@echo 'make check        lint, format, types, import directions and tests'
	@echo 'make bench        measure (SUITE=encoder, attention, bundle, calibration, compression, decoder, gate, gate_overhead,'
	@echo '                  interleaving, sparse, tensorrt, tensorrt_corpus, tensorrt_lint)'
	@echo 'make docs         write the command line reference anew'
	@echo 'make picture      draw the table of the last demo into docs/result-table.svg'
	@echo 'make constraints  pin anew what the environment is made of'

# The constraints hold every package, torch included, to the versions that were tested together. Installing builds the
# sparse kernels where there is a compiler.
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt \
		runtimes/sparse/csrc/CMakeLists.txt $(wildcard runtimes/sparse/csrc/*.cpp runtimes/sparse/csrc/*.h)
	@test -n "$(PYTHON)" || { echo 'stepdown needs Python 3.11 or later; name one with PYTHON=...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	model=$$($(BIN)/python -m bench.assets minilm); \
	texts=$$($(BIN)/python -m bench.assets lee-background); \
	targets='--target onnxruntime'; \
	if $(BIN)/python -c 'import tensorrt_rtx' 2>/dev/null; then targets="$$targets --target tensorrt"; fi; \
	$(BIN)/stepdown export "$$model" $$targets --calibration-data "$$texts" -o out/minilm --force
	$(BIN)/stepdown run out/minilm --text 'A step-down transformer lowers the voltage.'

MARK ?= not slow
# Each takes up to 4 GB. A file stays with one of them: its tests share models that are made once.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
test: $(STAMP)
	$(PYTEST) -m '$(MARK)'

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror runtimes/sparse/csrc/*.cpp runtimes/sparse/csrc/*.h tests/fuzz/*.cpp tests/fuzz/*.h
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m '$(MARK)'

bench: $(STAMP)
	$(BIN)/python -m bench.suites.$(SUITE)

docs: $(STAMP)
	$(BIN)/python -m exporter.cli.reference > docs/cli.md

picture: $(STAMP)
	$(BIN)/python -m exporter.reporting.picture out/minilm/report.json docs/result-table.svg

# From a clean environment: torch first (the newest is not what was tested), then everything the tests need.
constraints:
	rm -rf build/pin
	$(PYTHON) -m venv build/pin
	build/pin/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	build/pin/bin/python -m pip install --quiet -e '.[dev]'
	build/pin/bin/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/^\(torch==[^+]*\).*/\1/' > constraints.txt
	rm -rf build/pin

clean:
	rm -rf $(VENV) build out runtimes/sparse/lib

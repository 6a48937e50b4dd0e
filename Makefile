# make demo   the main job: one sentence, its contextualised embeddings and the attention behind them
# make test   format, lint, types, tests
# make bench  the figures of the README, measured here
# make        both of the first two

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: all demo test bench format clean

all: demo test

demo: .venv/demo
	$(BIN)/regard explain "Time flies like an arrow" --word flies --save flies.html
	@echo
	@echo "The same, to click on: flies.html"

test: .venv/test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest

bench: .venv/test
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/long.py
	$(BIN)/python benchmarks/gpt2.py

format: .venv/test
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv flies.html

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "regard needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) '.[model,plot]'
	@touch $@

.venv/test: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) '.[model,plot,corpus,bench,dev]'
	@touch $@

# Everything happens in .venv, which is made on first use.

VENV := .venv
BIN := $(VENV)/bin
SOURCES := odingw twisted tests

.PHONY: run test lint types unit trial format clean

run: $(VENV)/installed
	@$(BIN)/python -m odingw.sim.demo

test: lint types unit

lint: $(VENV)/test-installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/test-installed
	$(BIN)/mypy

unit: $(VENV)/test-installed
	@tools/install-parts
	$(BIN)/python -m pytest

trial: $(VENV)/test-installed
	$(BIN)/trial tests

format: $(VENV)/test-installed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp* var

$(VENV)/python: tools/make-venv
	@tools/make-venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/test-installed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

# Everything happens in .venv, which is made on first use.

VENV := .venv
BIN := $(VENV)/bin
SOURCES := odingw twisted tests benchmarks
PREFIX := /opt/odingw

.PHONY: run test lint types unit trial bench install format clean

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

bench: $(VENV)/test-installed
	@tools/install-parts
	$(BIN)/python -m benchmarks

# As root: a virtual environment in PREFIX, and systemd units for it.
install:
	@[ -e $(PREFIX)/pyvenv.cfg ] || [ ! -e $(PREFIX) ] || \
		{ echo 'install: PREFIX must be a new folder or an earlier installation: $(PREFIX)' >&2; exit 1; }
	@[ -e $(PREFIX)/pyvenv.cfg ] || tools/make-venv $(PREFIX)
	$(PREFIX)/bin/python -m pip install --quiet --upgrade .
	@# Writes Twisted's plugin cache, which the gateway's own user may not.
	@$(PREFIX)/bin/twistd --help >/dev/null
	@tools/install-units $(PREFIX)

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

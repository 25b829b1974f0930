# Everything happens in .venv, which is made on first use, of what locks/ names and nothing else.

VENV := .venv
BIN := $(VENV)/bin
FROM_LOCK := -m pip install --quiet --require-hashes --only-binary :all: -r
ITSELF := -m pip install --quiet --no-deps --no-build-isolation
SOURCES := odingw twisted tests benchmarks docs packaging tools/make-executable
PREFIX := /opt/odingw
SOAK_SECONDS := 3600
FUZZ_SECONDS := 60
UPGRADE := --upgrade
# Tests wait now and then for the processes that they start: one more than there are cores.
WORKERS := $(shell expr $$(nproc) + 1)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Images of containers turn it on; every process would then compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test quick lint types unit inside trial docs bench faults fuzz soak mutants audit \
	install executable format clean lock newest lowest

run: $(VENV)/installed
	@$(BIN)/odingw demo

# The type checker beside the tests.
test: lint
	@$(MAKE) --no-print-directory -j 2 types unit

# Without a test that starts a process or uses a socket.
quick: lint
	@$(MAKE) --no-print-directory -j 2 types inside

lint: $(VENV)/test-installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/test-installed
	$(BIN)/mypy

unit: $(VENV)/test-installed
	@tools/install-parts
	$(PYTEST)

inside: $(VENV)/test-installed
	HYPOTHESIS_PROFILE=quick $(PYTEST) --quick -r fE

trial: $(VENV)/test-installed
	$(BIN)/trial tests

# HTML into build/docs, manual pages into build/man; a warning is an error.
docs: $(VENV)/docs-installed
	$(BIN)/python -m sphinx -W --keep-going -n -q -d build/doctrees -b html docs build/docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -d build/doctrees -b man docs build/man

bench: $(VENV)/test-installed
	@tools/install-parts
	$(BIN)/python -m benchmarks

# Breaks things on purpose, and tries what takes too long for each run; an hour.
faults: $(VENV)/test-installed
	@tools/install-parts
	HYPOTHESIS_PROFILE=thorough $(PYTEST) --timeout 7200 -m 'thorough or hypothesis or long'
	$(BIN)/python -m benchmarks.faults all

# Every parser of what strangers send, for FUZZ_SECONDS each; see tests/fuzz/README.rst.
fuzz: $(VENV)/test-installed
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# All loads together for SOAK_SECONDS; samples and a plot go to var/soak.
soak: $(VENV)/test-installed
	@tools/install-parts
	$(BIN)/python -m benchmarks.soak --seconds $(SOAK_SECONDS)

# Takes each defence of docs/security.rst out of a copy, and sees its test fail.
mutants: $(VENV)/test-installed
	@tools/install-parts
	$(BIN)/python -m tests.weaknesses.mutate

# Asks for known vulnerabilities of all that the lock names; says so if nobody can be asked.
audit: $(VENV)/python
	@$(BIN)/python tools/audit

# The newest that setup.cfg and pyproject.toml allow goes into locks/. UPGRADE= changes no more than
# must be, UPGRADE='--upgrade-package NAME' one library alone.
lock: .venv-lock/installed
	@tools/lock .venv-lock/bin/uv $(UPGRADE)

# All tests with the newest that setup.cfg allows, and with the lowest of what runs.
newest:
	@tools/make-venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable '.[test]'
	@cd .venv-newest && touch python installed test-installed
	@$(MAKE) VENV=.venv-newest unit

lowest: .venv-lock/installed
	@tools/make-venv .venv-lowest
	@mkdir -p build
	.venv-lock/bin/uv pip compile --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct --output-file build/lowest.txt setup.cfg
	.venv-lowest/bin/python -m pip install --quiet -r build/lowest.txt --editable '.[test]'
	@cd .venv-lowest && touch python installed test-installed
	@$(MAKE) VENV=.venv-lowest unit

# As root: a virtual environment in PREFIX, and systemd units for it.
install:
	@[ -e $(PREFIX)/pyvenv.cfg ] || [ ! -e $(PREFIX) ] || \
		{ echo 'install: PREFIX must be a new folder or an earlier installation: $(PREFIX)' >&2; exit 1; }
	@[ -e $(PREFIX)/pyvenv.cfg ] || tools/make-venv $(PREFIX)
	$(PREFIX)/bin/python $(FROM_LOCK) locks/build.txt
	$(PREFIX)/bin/python $(FROM_LOCK) locks/run.txt
	$(PREFIX)/bin/python $(ITSELF) .
	@# Writes Twisted's plugin cache, which the gateway's own user may not.
	@$(PREFIX)/bin/twistd --help >/dev/null
	@tools/install-units $(PREFIX)

# dist/odingw, one file that runs where there is no Python.
executable: $(VENV)/executable-installed
	$(BIN)/python tools/make-executable

format: $(VENV)/test-installed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info _trial_temp* var

$(VENV)/python: tools/make-venv locks/build.txt
	@tools/make-venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/python setup.cfg pyproject.toml locks/run.txt
	$(BIN)/python $(FROM_LOCK) locks/run.txt
	$(BIN)/python $(ITSELF) --editable .
	@touch $@

# What an extra of setup.cfg needs beside.
$(VENV)/%-installed: $(VENV)/installed locks/%.txt
	$(BIN)/python $(FROM_LOCK) locks/$*.txt
	@touch $@

.venv-lock/installed: tools/make-venv locks/build.txt locks/lock.txt
	@tools/make-venv .venv-lock
	.venv-lock/bin/python $(FROM_LOCK) locks/lock.txt
	@touch $@

# The two set-up commands are `make up` and `make test`; each works on a fresh machine.
.PHONY: up test test-full test-virtualbox-full check docs lock bench release iso clean

VENV := .venv
MACHINE := $(VENV)/bin/machine
SHELL := /bin/bash

up: $(VENV)/installed
	@.ci/up

test: $(VENV)/tested
	@.ci/test

# The slow ones, too, and 1 GiB where `make test` moves 64 MiB.
test-full: $(VENV)/tested
	@MACHINE_TEST_FULL=1 .ci/test

# A machine in a VirtualBox whose processor is interpreted, to `docker version`: an hour or more.
test-virtualbox-full: $(VENV)/tested
	@MACHINE_TEST_VIRTUALBOX_FULL=1 $(VENV)/bin/pytest tests/vm/test_virtualbox_full.py -v -s

check: $(VENV)/tested
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

# The reference of verbs and the man pages, from the help texts.
docs: $(VENV)/tested
	@$(VENV)/bin/python -m docs.generator

# The newest release of everything that `make test` needs, for all who run it after.
lock: $(VENV)/tested
	@.ci/lock

bench: $(VENV)/tested
	@$(VENV)/bin/python -m benchmarks

# What a release publishes, into dist/: both ISOs, their digests, and the wheels; with URL=, where they will be, also
# what Homebrew and Scoop install them by.
release: $(VENV)/tested
	@$(VENV)/bin/python packaging/release.py $(if $(URL),--url "$(URL)")

iso: $(VENV)/installed
	@$(MACHINE) iso build

clean:
	rm -rf $(VENV) build dist *.egg-info

# Made anew when what they are made from changes.
$(VENV)/installed: pyproject.toml .ci/requirements .ci/packages
	@.ci/requirements run
	@touch $@

$(VENV)/tested: $(VENV)/installed .ci/requirements.lock
	@.ci/requirements test
	@touch $@

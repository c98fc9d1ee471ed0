# make lab         set up what is missing, deploy stack `lab` into a region on this machine, show who reaches whom
# make test        every test (root, /dev/net/tun); ends with the behaviours that hold
# make test-unit   the tests that need neither root nor /dev/net/tun
# make test-vm     worlds in virtual machines with Debian's cloud kernel: root, qemu, an hour; prints a table
# make check       lint, format, types, shell scripts, pinned versions, policies, settings, import rules, words, links: no root, no network
# make bench       figures of tunnels, beside other projects', and of the lab
# make docs        the site of the documentation, in build/docs/site; no root
# make clean       take the lab down, remove .venv and caches
#
# ARGS goes to pytest: make test ARGS="-k revoked"

.DEFAULT_GOAL := help
.PHONY: help setup setup-python setup-bench setup-vm setup-docs lab test test-unit test-vm check bench docs clean

BIN := .venv/bin
ARGS ?=
# Each file runs whole on one process: a lab serves all tests of a file. More processes than processors, because tests
# of machines mostly wait; in the order of tests/conftest.py, so that the long files of labs do not come last.
PYTEST := $(BIN)/pytest --numprocesses=4 --dist=loadfile --no-loadscope-reorder
SHELL_SCRIPTS = git grep --untracked -lE '^\#!/(usr/)?bin/(env )?(ba)?sh( |$$)' -- ':!*.md' ':!*.py'

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup:
	@tools/setup

setup-python:
	@tools/setup python

setup-bench:
	@tools/setup bench

setup-vm:
	@tools/setup vm

setup-docs:
	@tools/setup docs

lab: setup
	@$(BIN)/drawbridge lab up

test: setup
	@$(PYTEST) $(ARGS)

test-unit: setup-python
	@$(PYTEST) -m "not lab" $(ARGS)

test-vm: setup-vm
	@$(BIN)/pytest tests/vm $(ARGS)

check: setup-python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(SHELL_SCRIPTS) | xargs shellcheck
	$(BIN)/python tools/pin.py --check
	$(BIN)/python tools/policies.py --check
	$(BIN)/python tools/settings_tables.py --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -q tests/unit/test_imports.py tests/unit/test_words.py tests/unit/test_docs.py tests/unit/test_project.py

bench: setup-bench
	@$(BIN)/python -m bench $(ARGS)

docs: setup-docs
	@build/docs/venv/bin/python tools/site.py

clean:
	@if [ -x $(BIN)/drawbridge ]; then $(BIN)/drawbridge lab down; fi
	rm -rf build .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

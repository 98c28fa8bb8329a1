# make serve: from an empty checkout to a running server.   make test: every check there is.
PYTHON ?= python3
VENV   := .venv
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: help serve test setup lint types imports unit e2e chaos parity setup-test clean

help:
	@echo "make serve   set up, fetch the starter models, serve on http://127.0.0.1:8000"
	@echo "make test    set up, then lint, types, import rule, unit and end-to-end tests"
	@echo "make setup   the installing part of both"
	@echo "make chaos   the randomised failure and schema tests at full length"
	@echo "make parity  every stored text of Hugging Face's, in every mode of the engine"

serve: setup
	@$(VENV)/bin/carpool serve

test: setup-test lint types imports unit e2e

setup: $(VENV)/.installed

setup-test: $(VENV)/.installed-test

# The stamps make a second run free; a changed list of dependencies installs again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) scripts/check_machine.py
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Carpool into $(VENV)"
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "installing the test extras into $(VENV)"
	@$(PIP) install --constraint constraints.txt --editable '.[test]'
	@touch $@

lint:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types:
	$(VENV)/bin/mypy

imports:
	$(VENV)/bin/lint-imports --no-cache

# Whole files to each of two processes: what a file loads is loaded once. Servers (e2e) want all cores, and so does
# what is to compute as they do.
unit:
	$(VENV)/bin/pytest tests/unit -m 'not all_cores' -n 2 --dist loadfile --no-loadscope-reorder
	$(VENV)/bin/pytest tests/unit -m all_cores

e2e:
	$(VENV)/bin/pytest tests/e2e

chaos: setup-test
	CARPOOL_CHAOS_REQUESTS=10000 CARPOOL_SCHEMATHESIS_EXAMPLES=100 \
		$(VENV)/bin/pytest tests -k 'chaos or schemathesis'

parity: setup-test
	CARPOOL_PARITY=all $(VENV)/bin/pytest tests -k parity

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

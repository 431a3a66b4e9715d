# make demo: set up and meta-learn sine waves.   make test: set up and run the tests.
# make docs: build the documentation into site/.   make serve-docs: show it at http://127.0.0.1:8000.
PYTHON ?= python3
# processes that run the tests
WORKERS ?= auto
BIN := .venv/bin

.PHONY: demo test lint types tables docs serve-docs clean

demo: .venv/installed
	$(BIN)/fewstep demo

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

tables: .venv/installed
	$(BIN)/python docs/generate_tables.py

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve-docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "fewstep needs Python 3.10 or newer; found " + sys.version)'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf .venv dist build site .pytest_cache .mypy_cache .ruff_cache

# Everything a fresh machine needs: Python 3.11 or later, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Modules are compiled when they are first imported, which most never are.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --editable

.PHONY: demo pictures test check lint types imports doctests docs clean

demo: $(VENV)/installed
	$(BIN)/python demo/demo.py

# The pictures of README and docs. They are meant to be drawn with ImageNet weights.
pictures: demo
	$(BIN)/python demo/draw_pictures.py docs/images

test: $(VENV)/installed-dev
	$(BIN)/pytest -n 3 --dist worksteal

check: lint types imports doctests

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

imports: $(VENV)/installed-dev
	$(BIN)/lint-imports

doctests: $(VENV)/installed-dev
	$(BIN)/pytest -q --doctest-modules featurepipe

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) demo-workspace site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "featurepipe needs Python 3.11 or later; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) .
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) '.[dev]'
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) '.[docs]'
	touch $@ $(VENV)/installed

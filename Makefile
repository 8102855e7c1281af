# Two commands for a new user: `make demo` and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: install demo test test-browser docs format clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/iava demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

test-browser: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,browser,app]'
	command -v chromium || $(BIN)/playwright install chromium
	$(BIN)/pytest -m browser tests/browser

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist runs site

docs: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	$(BIN)/pytest -m docs tests/docs
	$(BIN)/python -m tools.reference
	$(BIN)/zensical build --clean --strict
	$(BIN)/python -m tools.check_site site

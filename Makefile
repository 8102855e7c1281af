# For a new user: `make demo` and `make test`. CI runs .ci/run.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# One thread per process: models in tests are tiny, and two processes share the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest

.PHONY: install demo lint test test-slow test-versions test-browser docs lab format clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/iava demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: install
	$(PYTEST) --numprocesses 2 --dist loadfile

# Other processes, Ray, threads and training: minutes.
test-slow: install
	$(PYTEST) -m slow --numprocesses 2 --dist loadfile

# Engine, families, methods and strategies on the oldest, the pinned and the newest release of transformers.
RELEASES ?= oldest pinned newest
test-versions: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.versions $(RELEASES)

# The tables of docs/results.md, which says how to train the pocket models of other seeds. SEEDS are their folders.
SEEDS ?= runs/pocket-2/weights runs/pocket-3/weights
lab: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.lab runs/lab pocket $(SEEDS)

test-browser: install
	$(PIP) --editable '.[dev,browser]'
	command -v chromium || $(BIN)/playwright install chromium
	$(PYTEST) -m browser tests/browser

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist runs site

docs: install
	$(PIP) --editable '.[dev,docs]'
	$(PYTEST) -m docs tests/docs
	$(BIN)/python -m tools.reference
	$(BIN)/zensical build --clean --strict
	$(BIN)/python -m tools.check_site site

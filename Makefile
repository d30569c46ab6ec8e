# make demo   the whole product on this machine, from nothing but Python 3.11
# make test   what has to pass before every commit
# make help   everything else

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO_STUDIES ?=
DEMO_JSON ?=
PYTEST_PROCESSES ?= 2
CHAOS_STUDIES ?= 300
CHAOS_KILLS ?= 30
CHAOS_SEED ?= 1
CHAOS_OPTIONS ?=
FUZZ_CASES ?= 200000
FUZZ_FILMS ?= 50000
FUZZ_SEED ?= 2

.PHONY: help demo test lint types layers pytest lock clean chaos fuzz
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# torch comes first and alone, so that its CPU build satisfies whatever asks for it later.
$(VENV)/.installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep -E '^torch==' requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

demo: $(VENV)/.installed ## start node and PACS, send studies, wait for results, print a table
	$(BIN)/python -m worker demo $(if $(DEMO_STUDIES),--studies "$(DEMO_STUDIES)") $(if $(DEMO_JSON),--json "$(DEMO_JSON)")

test: lint types layers pytest ## lint, types, layers, tests

lint: $(VENV)/.installed ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.installed ## import-linter: dependencies run one way
	$(BIN)/lint-imports

pytest: $(VENV)/.installed ## the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PYTEST_PROCESSES) --dist loadgroup  # a core for each

chaos: $(VENV)/.installed ## kill parts of a node under load; ends with one line of JSON
	$(BIN)/python -m tests.chaos.chaos --studies $(CHAOS_STUDIES) --kills $(CHAOS_KILLS) --seed $(CHAOS_SEED) $(CHAOS_OPTIONS)

fuzz: $(VENV)/.installed ## malformed associations, datasets and films, more than the tests send
	FUZZ_CASES=$(FUZZ_CASES) FUZZ_FILMS=$(FUZZ_FILMS) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/pytest -q --timeout 86400 -n 2 tests/fuzz

lock: ## pin what the environment holds now
	$(BIN)/pip freeze --all --exclude pip --exclude setuptools --exclude wheel | sed -E 's/^(torch==[0-9.]+)\+cpu$$/\1/' > requirements.lock

clean: ## remove what the demo and the tests leave
	rm -rf demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

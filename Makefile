# With no environment of your own: `make demo` makes .venv and uses it (PYTHON=python3.12 to choose).
# In a conda or other environment with gumlab installed: `make demo PY=python` makes nothing.
PYTHON ?= python3
PY ?= .venv/bin/python
BIN = $(shell $(PY) -c 'import sysconfig; print(sysconfig.get_path("scripts"))')
# the ledger is made from the study, so it comes last
LEDGER = benchmarks/quality/ledger.py
BENCHMARKS = $(filter-out $(LEDGER),$(sort $(wildcard benchmarks/speed/*.py benchmarks/quality/*.py))) $(LEDGER)
# a process for each core (JOBS=1: none), a file to each, the notebooks, which take longest, first
# no test reads what is logged, and to catch it costs every test a moment
# what is compiled is kept, wherever the machine says otherwise: a hundred processes read it
JOBS ?= logical
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -q -p no:logging -n $(JOBS) --dist loadfile --no-loadscope-reorder
NBVAL = --nbval-lax --nbval-current-env --nbval-cell-timeout=150
NOTEBOOKS = $(or $(wildcard notebooks/*.ipynb),$(error No notebook in notebooks/, so none was tested))
READY := $(if $(filter .venv/bin/python,$(PY)),.venv/.ready)

.PHONY: help demo lab app test test-package test-browser test-notebooks notebooks bench mutations lint assets coverage lowest docs slides clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -c constraints.txt -e ".[lab,test]"
	touch $@

demo: $(READY) ## Prune a built-in model and show what it cost
	$(BIN)/gumlab demo $(ARGS)

lab: $(READY) ## Open JupyterLab at the first notebook
	$(PY) -m jupyter lab notebooks/00_start_here.ipynb

app: $(READY) ## Serve all explorers as one page
	$(PY) -m voila notebooks/app/explorers.ipynb

test: $(READY) ## Run the tests, a browser's too where there is one, and every notebook
	$(PYTEST) $(NBVAL) $(NOTEBOOKS) tests

test-package: $(READY) ## Run the tests that need no browser
	$(PYTEST) --ignore-glob 'tests/notebooks/test_browser*.py' tests

test-browser: $(READY) ## Run the tests in a browser, where there is one
	$(PYTEST) tests/notebooks/test_browser*.py

test-notebooks: $(READY) ## Run every notebook under nbval
	$(PYTEST) $(NBVAL) $(NOTEBOOKS)

notebooks: $(READY) ## Run every notebook again and write it back in normal form
	$(PY) tools/run_notebooks.py

bench: $(READY) ## Run every benchmark (hours; each goes on where it was stopped)
	$(PY) -m pip install -q -c constraints.txt -e ".[bench]"
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(PY) $$script; done

mutations: $(READY) ## Break the package on purpose, and see that a test notices each time (ARGS=FILE for one)
	$(PY) tools/mutations.py $(ARGS)

lint: $(READY) ## Check style, types, versions in step, fresh notebooks and tables, the address
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(BIN)/lint-imports
	$(PY) tools/check_in_step.py
	$(PY) tools/run_notebooks.py --check
	$(PY) tools/update_readme.py --check
	$(PY) tools/addresses.py --check
	$(PY) tools/course_numbers.py --check

coverage: $(READY) ## Measure which lines of the package its tests reach (results/coverage.md)
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -q --ignore-glob 'tests/notebooks/test_browser*.py'
	$(PY) -m coverage combine -q
	@{ printf '# Lines of the package that its tests reach\n\nMade by `make coverage`, without a GPU and a browser; in per cent.\n\n'; \
	$(PY) -m coverage report --format=markdown; } > results/coverage.md
	$(PY) -m coverage report --fail-under=90

lowest: $(READY) ## Test with the oldest versions that pyproject.toml allows (downloads several GB)
	$(PY) tools/lowest.py

assets: $(READY) ## Make the built-in checkpoints and tokenizer again
	$(PY) tools/make_assets.py

docs: $(READY) ## Build the site, without a network (build/site/index.html)
	$(PY) docs/build.py build/site

slides: $(READY) ## Make the slides of the 90-minute class (build/slides.html)
	$(PY) tools/make_slides.py

clean: ## Remove what a build, a test or the demo left (.venv and runs/ stay)
	rm -rf build dist gumlab-demo .pytest_cache .ruff_cache .hypothesis .mypy_cache .coverage*
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

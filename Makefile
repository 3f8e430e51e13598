# What can be done here; `make` alone lists it.
# Everything is installed into folders of this repository and a cache of the user, nothing into the system.

PYTHON ?= python3
BIN = .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test quick docs reference table configurations faults bench lint servers venv clean

help: ## List what can be done
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## See an agent remember: two runs of an example and a search, on SQLite
	@$(PYTHON) scripts/venvs.py demo
	@bash scripts/demo.sh .venv-demo/bin/tea

test: ## Run all tests, on all databases and with the lowest versions; LONG=1 more of them, SEED=N a day's again
	@TEA_TEST_LONG=$(LONG) TEA_TEST_SEED=$(SEED) $(PYTHON) scripts/test.py

quick: venv ## Run the quick tests, on SQLite alone, in less than a minute
	cd python && TEA_TEST_DATABASES=sqlite ../$(BIN)/pytest -q -n auto -m "not slow"

docs: ## Build the site of the documentation in build/site, in its own environment
	@$(PYTHON) scripts/venvs.py docs
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "build/site/index.html"

table: ## Write docs/contract_table.md, from a run of the contract on all databases
	@$(PYTHON) scripts/table.py

reference: venv ## Write docs/reference/tea.md, every command and option, from the program
	cd python && ../$(BIN)/python -m the_edge_agent.cli.reference > ../docs/reference/tea.md

configurations: ## Run the differential test on many servers, drivers and engines; ARGS="--only mysql --operations 2000 --restart"
	@$(PYTHON) scripts/configurations.py $(ARGS)

faults: ## Kill, cut and fill servers, and count what is lost; ARGS="--only F[12] --targets mysql --short --restart"
	@$(PYTHON) scripts/faults.py $(ARGS)

bench: ## Write docs/benchmarks.md; SHORT=1 shows less, in minutes; ARGS="--only sqlite --operations get,put"
	@$(PYTHON) scripts/bench.py $(if $(SHORT),--short) $(ARGS)

lint: venv ## Check style, formatting and types
	cd python && ../$(BIN)/ruff check . ../scripts ../examples
	cd python && ../$(BIN)/ruff format --check . ../scripts ../examples
	cd python && ../$(BIN)/mypy
	cd scripts && ../$(BIN)/mypy --config-file ../python/pyproject.toml .

servers: ## Start the databases, print their URLs, stop them on Ctrl-C
	@$(PYTHON) scripts/servers.py serve

venv: ## Make .venv, with all that the tests and the linters need
	@$(PYTHON) scripts/venvs.py dev

clean: ## Remove the environments and what tools left behind; downloaded servers stay in the user's cache
	rm -rf .venv .venv-bench .venv-demo .venv-docs .venv-lowest build
	rm -rf python/build python/dist python/.hypothesis
	find . -type d \( -name __pycache__ -o -name .mypy_cache -o -name .ruff_cache -o -name .pytest_cache \) -prune -exec rm -rf {} +

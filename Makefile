# One command sets up and runs the demo, one sets up and passes the tests.
PYTHON ?= python3.11
VENV ?= .venv
# Any torch >= 2.13 will do; these two fit each other. A CPU build is enough.
TORCH ?= torch==2.14.1 torchvision==0.29.1

.PHONY: demo test lint bench

demo: $(VENV)/demo
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python scripts/check_size.py
	$(VENV)/bin/python -m pytest

bench: $(VENV)/bench
	$(VENV)/bin/python -m benchmarks.peers

$(VENV)/%: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q $(TORCH) -e '.[$*]'
	touch $@

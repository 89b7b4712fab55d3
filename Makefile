# One command sets up and runs the demo, one sets up and passes the tests.
# The first Python found that is 3.11 or newer.
PYTHON ?= $(firstword $(foreach p,python3.14 python3.13 python3.12 python3.11 python3,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
VENV ?= .venv
# Any torch >= 2.13 will do; these two fit each other. A CPU build is enough.
TORCH ?= torch==2.14.1 torchvision==0.29.1

.PHONY: demo test bench docs

demo: $(VENV)/demo
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python scripts/check_size.py
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4
	$(VENV)/bin/python scripts/check_wheel.py

docs: $(VENV)/dev
	$(VENV)/bin/mkdocs build --strict

bench: $(VENV)/bench
	$(VENV)/bin/python -m benchmarks.peers

$(VENV)/%: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q $(TORCH) -e '.[$*]'
	touch $@

# `make demo` shows what Tencrypt does; `make test` shows that it does it; `make bench` how fast. Each sets up what it needs.
# On Debian, as root: programs and pods' namespaces need that, and are named before anything is done.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-full bench fuzz lint format venv wheel lock clean programs servers

VENV := .venv
PYTHON := $(VENV)/bin/python
LOCKED := requirements/runtime.txt requirements/dev.txt
TIERS := tests/unit tests/sim tests/fuzz tests/mutants tests/vault tests/netns tests/attack tests/independent tests/package
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet --no-input

help:
	@echo "make demo       one curl between two Services, who listens, lies and forges, told as a story (root)"
	@echo "make test       every tier of tests that fits a few minutes (root)"
	@echo "make test-full  the same with the large counts and coverage (root)"
	@echo "make bench      Tencrypt measured beside what else there is, about 15 minutes (root); BENCH='--help' tells more"
	@echo "make fuzz       each parser of untrusted bytes under atheris, 10 minutes in all, two at a time"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make format     let ruff lay out the code"
	@echo "make venv       only the virtual environment, with .venv/bin/tencrypt"
	@echo "make wheel      dist/tencrypt-*.whl"
	@echo "make lock       resolve requirements/*.in anew"
	@echo "make clean      remove what these have made"

demo: programs venv
	PYTHONPATH=tests $(PYTHON) -m demo.demo

test: programs servers
	$(PYTHON) -m pytest $(TIERS)

test-full: programs servers
	$(PYTHON) -m pytest tests/sim/test_scenarios.py tests/attack --scenarios 20000 --attack-factor 10
	$(PYTHON) -m pytest -rP tests/netns/test_never_clear.py --kills 300
	$(PYTHON) tests/combinations.py
	$(PYTHON) -m coverage run -m pytest $(TIERS)
	$(PYTHON) -m coverage report

bench: programs venv
	@tests/prepare programs bench/debian-packages.txt
	$(PYTHON) -m bench $(BENCH)

fuzz: venv
	$(PYTHON) tests/fuzz/campaign.py --seconds 600

lint: venv
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports

format: venv
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

programs:
	@tests/prepare programs
	@tests/prepare kernel

# OpenBao is built once, in some six minutes, into ~/.cache/tencrypt, unless PATH has bao or vault.
servers: venv
	PYTHONPATH=tests $(PYTHON) -m support.openbao

# The stamp holds a hash of what the environment is made of: a new date alone remakes nothing.
venv:
	@sum=$$(cat $(LOCKED) pyproject.toml | sha256sum); \
	if [ "$$(cat $(VENV)/.stamp 2>/dev/null)" != "$$sum" ]; then \
	    python=$$(tests/prepare python); \
	    echo "making $(VENV) with $$python"; \
	    "$$python" -m venv --clear $(VENV); \
	    $(PIP) install --require-hashes -r requirements/runtime.txt -r requirements/dev.txt; \
	    $(PIP) install --no-deps --no-build-isolation --no-index --editable .; \
	    echo "$$sum" >$(VENV)/.stamp; \
	fi

wheel: venv
	$(PYTHON) -m hatchling build --target wheel

lock:
	rm -rf build/lock && mkdir -p build
	"$$(tests/prepare python)" -m venv build/lock
	build/lock/bin/pip --disable-pip-version-check --quiet install pip-tools
	cd requirements && for name in runtime dev bench; do CUSTOM_COMPILE_COMMAND="make lock" \
	    ../build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file=$$name.txt $$name.in; done

clean:
	rm -rf $(VENV) build dist __pycache__ .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find proxy ca policy bench tests -name __pycache__ -prune -exec rm -rf {} +

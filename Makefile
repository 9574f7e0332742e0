# Developer tasks; `make help` lists them. Everything runs in .venv, installed from the hash-locked requirements.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# To use another interpreter: make install PYTHON=/path/to/python3.12 (after make clean)
PYTHON ?=
# Options for `make up`, `make bench` and others, for example: make up ARGS="--nodes 3 --port 9000"
ARGS ?=
# Options for pytest, for example: make test PYTEST="-k room -x"
PYTEST ?=
UV ?= uv
IMAGE ?= keepline:0.1.0

BIN := .venv/bin
INSTALLED := .venv/.installed
# Less, for those who only run it: no test tools, browsers' drivers or media libraries.
UP_INSTALLED := .venv/.installed-up
JS_TOOLS := clients/js/node_modules/.installed

.PHONY: help install up test lint system-packages python-tests js-tools js-tests bundle chaos rolling-restart attack fuzz simulate simulate-nightly outage storm images stack bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## set up .venv for development from the lock, again only when the lock or pyproject.toml changed

# A .venv with pip that works: an upgrade of the system's Python may break one.
define MAKE_VENV
@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
  rm -rf .venv; \
  for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
    "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
    echo "making .venv with $$("$$python" --version)"; \
    "$$python" -m venv .venv; \
    break; \
  done; \
  if [ ! -x $(BIN)/python ]; then \
    echo "make: no Python 3.11 or newer with venv found: install one" \
      "(Debian, Ubuntu: apt-get install python3 python3-venv), or set its path: make install PYTHON=/path/to/python3.12" >&2; \
    exit 1; \
  fi; \
fi
endef

$(INSTALLED): requirements/dev.txt pyproject.toml
	$(MAKE_VENV)
	@$(BIN)/python requirements/install.py requirements/dev.txt
	@touch $(UP_INSTALLED) $@

$(UP_INSTALLED): requirements/up.txt pyproject.toml
	$(MAKE_VENV)
	@$(BIN)/python requirements/install.py requirements/up.txt
	@touch $@

up: $(UP_INSTALLED) ## run a whole cluster on this machine: keepline up $(ARGS)
	@exec $(BIN)/keepline up $(ARGS)

test: lint system-packages python-tests js-tests ## run everything that CI runs

lint: $(INSTALLED) ## run linters and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

system-packages: ## install what the tests need besides Python packages: Chromium
	@tests/system-packages.sh

python-tests: $(INSTALLED) js-tools ## run pytest in two processes; in one: make python-tests PYTEST="-n 0"
	$(BIN)/pytest -n 2 $(PYTEST)

chaos: $(INSTALLED) ## kill nodes under 100 calls for two minutes; CHAOS_SEED=… repeats a run
	CHAOS_ROOMS=$${CHAOS_ROOMS:-100} CHAOS_SECONDS=$${CHAOS_SECONDS:-120} $(BIN)/pytest -s tests/acceptance/faults/test_chaos.py

check-delivery: $(INSTALLED) ## break everything under 20 calls for five minutes and check their histories; DELIVERY_SEED=… repeats a run
	DELIVERY_CALLS=$${DELIVERY_CALLS:-20} DELIVERY_SECONDS=$${DELIVERY_SECONDS:-300} $(BIN)/pytest -s tests/acceptance/faults/test_delivery.py

attack: $(INSTALLED) ## run attacks over real sockets, from one and twenty connections; ATTACK_SECONDS=… each
	ATTACK_SECONDS=$${ATTACK_SECONDS:-5} ATTACK_CONNECTIONS=$${ATTACK_CONNECTIONS:-1,20} ATTACK_FACTOR=$${ATTACK_FACTOR:-2} ATTACK_NICE=19 \
	  $(BIN)/pytest -s $(wildcard tests/security/test_attacks*.py) $(PYTEST)

fuzz: $(INSTALLED) ## fuzz framing, handshakes and frames; FUZZ_SECONDS=… each, FUZZ_SEED=… repeats a run
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} $(BIN)/pytest -s tests/security/test_fuzz.py

simulate: $(INSTALLED) ## simulate clusters on a virtual clock with 300 seeds; one seed: make simulate ARGS="--seed 7 --verbose"
	$(BIN)/python -m tests.simulation $(or $(ARGS),--first 1 --count 300)

simulate-nightly: $(INSTALLED) ## simulate SEEDS (5000) new seeds on all cores
	$(BIN)/python -m tests.simulation --new --count $${SEEDS:-5000}

images: ## build the container image with Docker; IMAGE=… sets its name
	docker build -f deploy/Dockerfile -t $(IMAGE) .

stack: $(INSTALLED) ## test deploy/ in a Docker Engine (started if you are root on Debian): scale, kill, upgrade under 100 calls
	$(BIN)/pytest -s tests/stack/scenario.py

storm: $(INSTALLED) ## kill a node under 3,000 clients; other scenarios: make storm ARGS="--help"
	$(BIN)/python -m tests.storm $(ARGS)

outage: $(INSTALLED) ## stop Postgres for a minute under load; OUTAGE_SECONDS=…, OUTAGE_ROOMS=… (per second)
	OUTAGE_SECONDS=$${OUTAGE_SECONDS:-60} $(BIN)/pytest -s tests/acceptance/faults/test_postgres_outage.py

rolling-restart: $(INSTALLED) ## restart every node in turn under 200 calls (ROLL_CALLS=…)
	ROLL_CALLS=$${ROLL_CALLS:-200} ROLL_DRAIN_SECONDS=$${ROLL_DRAIN_SECONDS:-10} $(BIN)/pytest -s tests/acceptance/faults/test_rolling_restart.py

bundle: $(JS_TOOLS) ## rebuild the browser SDK's single file, clients/js/keepline.bundle.js
	cd clients/js && npm run --silent bundle

$(JS_TOOLS): clients/js/package-lock.json
	cd clients/js && npm ci --silent
	@touch $@

js-tools:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(JS_TOOLS); fi

js-tests: js-tools ## run the browser SDK's tests; skipped without Node.js 20
	@if node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' 2>/dev/null; then \
	  cd clients/js && node --test test/; \
	else \
	  echo "make: SKIPPED the JavaScript tests: Node.js 20 or newer is not on PATH" >&2; \
	fi

bench: $(INSTALLED) ## run benchmarks: python -m bench $(ARGS)
	$(BIN)/python -m bench $(ARGS)

lock: ## regenerate requirements/ from pyproject.toml (needs uv)
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
	  --quiet -o requirements/production.txt
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra embedded --group dev --quiet -o requirements/dev.txt
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra embedded --group editable --constraint requirements/dev.txt --quiet -o requirements/up.txt
	$(UV) pip compile --group pyproject.toml:build --universal --python-version 3.11 --generate-hashes --no-header \
	  --constraint requirements/dev.txt --quiet -o requirements/build.txt

clean: ## remove .venv and caches, but not the data of `make up` (.keepline)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

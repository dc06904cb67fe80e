# The few verbs. `make demo` and `make test` set up everything that they need; CONCLAVE_NO_APT=1: nothing from Debian.
VENV := .venv
VLLM := .venv-vllm
CONCLAVE := $(VENV)/bin/conclave
# Groups of files at once (tests/distribution.py): whoever waits for a server leaves its core to the others.
# Images of Python often forbid bytecode, and every group would compile all tests and sources anew in every run.
PYTEST := PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest --dist loadfile --no-loadscope-reorder
TASK ?= Write a Python function to calculate the factorial of a number
UP := $(if $(LLM_URL),--llm-url "$(LLM_URL)" $(if $(MODEL),--model "$(MODEL)"),)

.PHONY: help demo test test-stacks test-unit check proto bench up down lock acceptance test-faults test-security fuzz vllm test-vllm test-model demo-vllm evaluate-vllm acceptance-vllm attacks-vllm

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/.ready: requirements.lock pyproject.toml infra/setup.sh infra/system.sh infra/install.py infra/uv.py infra/uv.lock.txt
	@bash infra/setup.sh $(VENV)
	@touch $@

INSTALL := $(VENV)/bin/python -m infra.install
$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.lock
	@echo "installing what tests and checks"
	@$(INSTALL) requirements-dev.lock
	@touch $@

$(VLLM)/.ready: infra/vllm/requirements.lock infra/vllm/setup.sh infra/vllm/tiny_model.py infra/vllm/small_model.py infra/vllm/small_model.lock infra/system.sh LICENSE | $(VENV)/.ready
	@bash infra/vllm/setup.sh $(VLLM) $(VENV)/bin/python
	@touch $@

demo: $(VENV)/.ready ## bring the stack up and let a council decide: TASK=... LLM_URL=... MODEL=...
	@$(CONCLAVE) up --detach $(UP)
	@$(CONCLAVE) deliberate "$(TASK)" --requirement "Use type hints" --requirement "Add a docstring"
	@echo "The stack stays up. Ask it more: $(CONCLAVE) deliberate \"...\"   Stop it: make down"

test: $(VENV)/.ready-dev ## run the tests, on real servers
	$(PYTEST) -n 3 -m "not stack"

test-stacks: $(VENV)/.ready-dev ## run those that start a stack, a database, a Ray, agent hosts or a worker of their own
	@bash infra/test_tools.sh postgresql
	$(PYTEST) -n 3 -m stack

test-unit: $(VENV)/.ready-dev ## run the tests that need no server: rules, prompts, tallies, collector, queue and leases on a fake NATS
	$(PYTEST) -n 3 -m unit

acceptance: $(VENV)/.ready-dev ## let councils decide end to end on the simulator, or on CONCLAVE_LLM_URL=... CONCLAVE_LLM_MODEL=...
	@echo "acceptance $(if $(CONCLAVE_LLM_URL),on the model server $(CONCLAVE_LLM_URL),on the SIMULATOR: CONCLAVE_LLM_URL=http://host:8000 asks a live model)"
	ACCEPTANCE_LLM_URL="$(CONCLAVE_LLM_URL)" ACCEPTANCE_LLM_MODEL="$(CONCLAVE_LLM_MODEL)" $(VENV)/bin/python -m pytest tests/acceptance

test-faults: $(VENV)/.ready-dev ## break a stack on purpose: parts that die or go away, a full disk, two under one id; BATCH_ROUNDS=10 kills more batches
	$(PYTEST) -n 2 tests/faults

test-security: $(VENV)/.ready-dev ## attack a stack: as another user, from a page in Chromium, with hostile content; a seeded part of the fuzz
	@bash infra/test_tools.sh chromium
	$(PYTEST) -n 2 tests/security

EXAMPLES ?= 10000
fuzz: $(VENV)/.ready-dev ## the same for long, with the fuzz on new random cases: EXAMPLES=10000 for each property
	@bash infra/test_tools.sh chromium
	FUZZ_EXAMPLES=$(EXAMPLES) $(PYTEST) -n 2 tests/security tests/tasks tests/infra/test_parameter_bounds.py tests/blocks/test_completions.py --hypothesis-profile=fuzz --timeout=21600

vllm: $(VLLM)/.ready ## set a real vLLM up for the CPU, with a small real model and a tiny random one

test-vllm: $(VENV)/.ready-dev $(if $(LLM_URL),,$(VLLM)/.ready) ## hold a real vLLM to the contract: this one, or LLM_URL=... MODEL=...
	CONTRACT_SERVER="$(or $(LLM_URL),vllm)" CONTRACT_MODEL="$(MODEL)" $(VENV)/bin/python -m pytest tests/contract

test-model: $(VENV)/.ready-dev $(VLLM)/.ready ## let a council of the small real model answer 20 questions and decide one task
	$(VENV)/bin/python -m pytest tests/small_model

demo-vllm: $(VENV)/.ready $(VLLM)/.ready ## the demo on a real vLLM on the CPU, with a small real model
	@bash infra/vllm/demo.sh $(VENV)/bin $(VLLM) "$(TASK)"

QUESTIONS ?= docs/examples/questions-200.jsonl
evaluate-vllm: $(VENV)/.ready $(VLLM)/.ready ## is a council of the small real model better than one plain call? QUESTIONS=... ID=...
	@bash infra/vllm/evaluate.sh $(VENV)/bin $(VLLM) "$(QUESTIONS)" bench-results/evaluate.csv "$(ID)"

acceptance-vllm: $(VENV)/.ready-dev $(VLLM)/.ready ## the acceptance tests on the small real model; by hand, since it is small: what fails is to be read
	@bash infra/vllm/acceptance.sh $(VENV)/bin $(VLLM)

attacks-vllm: $(VENV)/.ready $(VLLM)/.ready ## how often the small real model puts an injected answer first, 55 attacks x 20 ballots
	@bash infra/vllm/attacks.sh $(VENV)/bin $(VLLM) bench-results/attacks.json

check: $(VENV)/.ready-dev ## lint, types, layers, one decision a line, few a function
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --explicit-package-bases tests/fakes
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python tests/check_expressions.py
	@bash infra/proto.sh $(VENV)/bin/python --check

proto: $(VENV)/.ready-dev ## make the code of the gateway's gRPC of its proto
	@bash infra/proto.sh $(VENV)/bin/python

$(VENV)/.ready-bench: $(VENV)/.ready requirements-bench.lock
	@echo "installing what the benchmark compares with and draws with"
	@$(INSTALL) requirements-bench.lock
	@touch $@

bench: $(VENV)/.ready-bench ## measure beside floor, stock runner and LangGraph, then worker, gateway and batches; bench-results/: OPTIONS="--latency 2" BATCH="--rows 100,1000"
	@BATCH="$(BATCH)" bash infra/bench.sh $(CONCLAVE) $(OPTIONS)

up: $(VENV)/.ready ## bring the stack up
	@$(CONCLAVE) up --detach $(UP)

down: $(VENV)/.ready ## end the stack
	@$(CONCLAVE) down

# As uv is by itself: an index of one's own, which pip may be told of, may have other files, and so other hashes.
LOCK := $(VENV)/uv/bin/uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
lock: ## resolve all locks anew, with the uv that the set-up fetched
	$(LOCK) --extra kubernetes --group build pyproject.toml -o requirements.lock
	$(LOCK) -c requirements.lock --group dev -o requirements-dev.lock
	$(LOCK) -c requirements.lock --group bench -o requirements-bench.lock
	$(LOCK) --group setup -o infra/uv.lock.txt

#!/usr/bin/env bash
# The acceptance tests on the small real model: acceptance.sh BIN VENV
set -euo pipefail
conclave=$1/conclave python=$1/python
venv=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stack.sh"

eval "$("$conclave" env | grep -E '^export (VLLM_URL|VLLM_MODEL|CONCLAVE_LLM_API_KEY)=')"
code=0
ACCEPTANCE_LLM_URL=$VLLM_URL ACCEPTANCE_LLM_MODEL=$VLLM_MODEL "$python" -m pytest tests/acceptance || code=$?
echo "The stack stays up, with vLLM on the CPU. Stop it: make down"
exit "$code"

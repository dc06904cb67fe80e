#!/usr/bin/env bash
# How often the small real model puts an injected answer first: attacks.sh BIN VENV JSON
set -euo pipefail
conclave=$1/conclave python=$1/python
venv=$(cd "$2" && pwd)
json=$3
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stack.sh"

mkdir -p "$(dirname "$json")"
eval "$("$conclave" env)"
"$python" -m tests.contract.attacks --url "$VLLM_URL" --model "$VLLM_MODEL" --json "$json"
echo "The stack stays up, with vLLM on the CPU. Stop it: make down"

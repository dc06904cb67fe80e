#!/usr/bin/env bash
# A council on a real vLLM on this machine's CPU: demo.sh BIN VENV TASK, with the command line in BIN and vLLM in VENV.
# With a small model where a model hub answers, else with the tiny one that was made on the spot.
set -euo pipefail
conclave=$1/conclave
tiny=$(cd "$2" && pwd)/tiny
task=$3
small=Qwen/Qwen3-0.6B
hub=${HF_ENDPOINT:-https://huggingface.co}

hub_answers() {
  [ -z "${HF_HUB_OFFLINE:-}" ] && "$2" - "$1" <<'PYTHON' 2>/dev/null
import sys
from urllib.request import Request, urlopen

urlopen(Request(sys.argv[1], method="HEAD"), timeout=5)
PYTHON
}

if hub_answers "$hub/$small/resolve/main/config.json" "$1/python"; then
  model=$small
  CONCLAVE_VLLM_ARGS="--max-model-len 8192 --default-chat-template-kwargs '{\"enable_thinking\": false}'"
  export VLLM_CPU_KVCACHE_SPACE=4 CONCLAVE_START_TIMEOUT=1800
  echo "$hub answers: the model is $small (1.5 GB the first time, and slow on a CPU)"
else
  model=$tiny
  CONCLAVE_VLLM_ARGS="--max-model-len 8192"
  export CONCLAVE_START_TIMEOUT=600
  echo "$hub does not answer: the model is the tiny one with random weights. vLLM is real, its texts are NONSENSE"
fi
export CONCLAVE_VLLM_ARGS CONCLAVE_VLLM VLLM_MODEL=$model
CONCLAVE_VLLM=$(cd "$(dirname "$0")" && pwd)/cpu.sh
unset VLLM_URL

up=$("$conclave" status --json 2>/dev/null | "$1/python" -c 'import json, sys; print(json.load(sys.stdin)["model"] or "")') || true
if [ -n "$up" ] && [ "$up" != "$model" ]; then
  echo "a stack is up with another model ($up): make down ends it, then make demo-vllm again" >&2
  exit 1
fi

"$conclave" up --detach
code=0
"$conclave" deliberate "$task" --requirement "Use type hints" --requirement "Add a docstring" --deadline 900 || code=$?
case $code in
  0) ;;
  1 | 3 | 4) echo "Not every member's answer could be used, and the lines above say why: a model this small may end too soon or too late." ;;
  *) exit "$code" ;;
esac
if [ "$model" = "$tiny" ]; then
  echo "What you read is NONSENSE: random weights wrote it. The calls, the tokens and the times are those of a real vLLM."
fi
echo "The stack stays up, with vLLM on the CPU. Stop it: make down"

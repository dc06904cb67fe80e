#!/usr/bin/env bash
# A council on a real vLLM on this machine's CPU: demo.sh BIN VENV TASK, with the command line in BIN and vLLM in VENV.
# The model is SmolLM2-135M, which `make vllm` made; HUB_MODEL=Qwen/Qwen3-0.6B takes one of a model hub instead.
set -euo pipefail
conclave=$1/conclave
venv=$(cd "$2" && pwd)
task=$3
here=$(cd "$(dirname "$0")" && pwd)

CONCLAVE_VLLM_ARGS="--max-model-len 8192"
export CONCLAVE_START_TIMEOUT=600
if [ -n "${HUB_MODEL:-}" ]; then
  model=$HUB_MODEL
  CONCLAVE_VLLM_ARGS="--max-model-len 8192 --default-chat-template-kwargs '{\"enable_thinking\": false}'"
  export VLLM_CPU_KVCACHE_SPACE=4 CONCLAVE_START_TIMEOUT=1800
  echo "the model is $model, from ${HF_ENDPOINT:-https://huggingface.co} (the first time it is fetched; slow on a CPU)"
elif [ -d "$venv/smollm2" ]; then
  model=$venv/smollm2
  echo "the model is SmolLM2-135M-Instruct, which is real and very small: its sentences are whole, its facts often wrong"
else
  model=$venv/tiny
  echo "SmolLM2-135M is not there: the model is the one of random weights. vLLM is real, its texts are NONSENSE"
fi
export CONCLAVE_VLLM_ARGS CONCLAVE_VLLM=$here/cpu.sh VLLM_MODEL=$model
unset VLLM_URL

up=$("$conclave" status --json 2>/dev/null | "$1/python" -c 'import json, sys; print(json.load(sys.stdin)["model"] or "")') || true
if [ -n "$up" ] && [ "$up" != "$model" ]; then
  echo "a stack is up with another model ($up): make down ends it, then make demo-vllm again" >&2
  exit 1
fi

"$conclave" up --detach
"$conclave" councils apply "$here/council.yaml"
code=0
"$conclave" deliberate "$task" --council small --requirement "Use type hints" --requirement "Add a docstring" || code=$?
case $code in
  0) ;;
  1 | 3 | 4) echo "Not every member's answer could be used, and the lines above say why: a model this small may end too soon or too late." ;;
  *) exit "$code" ;;
esac
if [ "$model" = "$venv/tiny" ]; then
  echo "What you read is NONSENSE: random weights wrote it. The calls, the tokens and the times are those of a real vLLM."
fi
echo "The stack stays up, with vLLM on the CPU. Stop it: make down"

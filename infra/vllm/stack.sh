# Sourced: brings a stack up on a real vLLM on this machine's CPU. Wants $conclave (the command line) and $venv (vLLM's).
# The model is SmolLM2-135M, which `make vllm` made; HUB_MODEL=Qwen/Qwen3-0.6B takes one of a model hub instead.
# Leaves $model, and $venv/tiny there where nothing better is at hand: random weights, whose texts are nonsense.
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

up=$("$conclave" status --json 2>/dev/null | "$(dirname "$conclave")/python" -c 'import json, sys; print(json.load(sys.stdin)["model"] or "")') || true
if [ -n "$up" ] && [ "$up" != "$model" ]; then
  echo "a stack is up with another model ($up): make down ends it, then the same again" >&2
  exit 1
fi

"$conclave" up --detach
"$conclave" councils apply "$here/council.yaml"

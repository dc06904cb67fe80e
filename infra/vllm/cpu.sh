#!/usr/bin/env bash
# `cpu.sh serve MODEL ...` is `vllm serve MODEL ...` as `make vllm` installed it, set up for a CPU, with priorities,
# counted prefix-cache hits and structured output that cannot pad with blanks. CONCLAVE_VLLM can point here.
# Options that are given come later and win.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
vllm=$root/.venv-vllm/bin/vllm
[ -x "$vllm" ] || { echo "there is no $vllm: make vllm comes first" >&2; exit 1; }

export VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}"  # GiB; the default is half of the memory
export TORCHDYNAMO_DISABLE=1  # else the first request with logprobs compiles for half a minute
export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
export PYTHONPATH="$root/infra/vllm/site${PYTHONPATH:+:$PYTHONPATH}"  # its processes wait asleep: site/sitecustomize.py says why
if [ -d "${2:-}" ]; then export HF_HUB_OFFLINE=1; fi  # a model that is here needs no hub

# Without chunks: when a seeded request's prompt is computed in parts, vLLM 0.32 on a CPU ends its engine with
# "CPU Generator does not use offset" (v1/worker/gpu_model_runner.py, _bookkeeping_sync).
exec "$vllm" "${@:1:2}" --no-enable-chunked-prefill --max-num-batched-tokens 32768 \
  --dtype bfloat16 --enforce-eager --max-num-seqs 64 --block-size 32 --scheduling-policy priority \
  --enable-prompt-tokens-details --structured-outputs-config '{"backend": "guidance", "disable_any_whitespace": true}' \
  "${@:3}"

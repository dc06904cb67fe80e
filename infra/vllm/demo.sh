#!/usr/bin/env bash
# A council on a real vLLM on this machine's CPU: demo.sh BIN VENV TASK, with the command line in BIN and vLLM in VENV.
set -euo pipefail
conclave=$1/conclave
venv=$(cd "$2" && pwd)
task=$3
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stack.sh"

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

#!/usr/bin/env bash
# Is a council of the small real model better than one plain call to it? evaluate.sh BIN VENV QUESTIONS SCORES ID
# A row for each question and way to an answer goes to SCORES; the same ID again repeats no call.
set -euo pipefail
conclave=$1/conclave
venv=$(cd "$2" && pwd)
questions=$3 scores=$4 id=$5
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stack.sh"

mkdir -p "$(dirname "$scores")"
code=0
"$conclave" evaluate "$questions" --council questions --output "$scores" ${id:+--id "$id"} || code=$?
echo "The stack stays up, with vLLM on the CPU. Stop it: make down"
[ "$code" = 3 ] || exit "$code" # 3: some questions were not decided, and the table says so

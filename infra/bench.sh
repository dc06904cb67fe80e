#!/usr/bin/env bash
# All that has a figure to reach, each on a stack of its own: bench.sh CONCLAVE [OPTIONS of `conclave bench`]
# BATCH has options of `conclave bench batch`, such as "--rows 100,1000,10000".
# Ends with 1 where a target was missed, else with the code of the first that could not be judged.
set -uo pipefail
conclave=$1
shift
results=bench-results
worst=0

measure() {
  "$conclave" bench "$@"
  local code=$?
  if [ "$code" = 1 ] || [ "$worst" = 0 ]; then worst=$code; fi
}

case " $* " in *" --help "*) exec "$conclave" bench --help ;; esac
measure --json "$results/bench.json" --plot "$results/bench.svg" "$@"
measure worker --doors 7 --json "$results/worker.json"
measure gateway --json "$results/gateway.json"
measure gateway --draining --json "$results/draining.json"
measure batch --json "$results/batch.json" --plot "$results/batch.svg" ${BATCH:-}
exit "$worst"

#!/usr/bin/env bash
# Makes the code of our proto: `infra/proto.sh .venv/bin/python`. With --check it only says whether what is committed is
# what it would make.
set -euo pipefail
python="$1"
room=deployments/orchestrator
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
# The package stands for the folder, so that the modules import each other from there.
"$python" -m grpc_tools.protoc -I "$room/generated=$room" \
  --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" "$room/generated/orchestrator.proto"
made="$out/$room/generated"
for name in orchestrator_pb2.py orchestrator_pb2.pyi orchestrator_pb2_grpc.py; do
  if [ "${2:-}" != --check ]; then
    install -m 644 "$made/$name" "$room/generated/$name"
  elif ! diff -q "$made/$name" "$room/generated/$name" >&2; then
    echo "$room/generated/$name is not what $room/orchestrator.proto makes: make proto" >&2
    exit 1
  fi
done

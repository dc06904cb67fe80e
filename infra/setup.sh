#!/usr/bin/env bash
# Makes the virtual environment $1 from requirements.lock: what production runs, without tools of tests and checks.
# Installs Python 3.11 and venv from Debian if missing, and says so first.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1

case $PWD in
  *[[:space:]]*) echo "Ray cannot start from a folder with a blank in its name: move or clone this one ($PWD)" >&2; exit 1 ;;
esac

. infra/system.sh

is_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }
find_python() { for each in "${PYTHON:-}" python3.11 python3; do if [ -n "$each" ] && is_311 "$each"; then command -v "$each"; return; fi; done; }

python=$(find_python)
if [ -z "$python" ]; then
  install "since there is no Python 3.11 (PYTHON=... names one)" python3.11 python3.11-venv
  python=$(find_python)
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  install "to make the environment $venv" python3.11-venv
fi

echo "making $venv: about 1 GB by uv, half a minute or so" >&2
"$python" -m venv --clear "$venv"
"$venv/bin/python" -m infra.install requirements.lock
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

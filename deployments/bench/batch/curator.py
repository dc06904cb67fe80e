"""Curator's environment, which is its own: it pins older versions of what we use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deployments.bench.batch.sides import SideFailed
from infra.uv import UvMissing, uv

FOLDER = Path(sys.prefix).with_name(".venv-curator")
PACKAGE = "bespokelabs-curator==0.1.31"
PROGRAM = Path(__file__).parent / "peers" / "curated.py"
_READY = FOLDER / ".ready"


def curator_command() -> list[str]:
    """How its side is started; its environment is made first where there is none. Raises SideFailed with the reason."""
    python = FOLDER / "bin" / "python"
    if not _READY.exists():
        steps = (
            ("venv", "-q", "--clear", "--python", sys.executable, str(FOLDER)),
            ("pip", "install", "-q", "--python", str(python), PACKAGE),
        )
        try:
            if any(uv(*step) for step in steps):
                raise SideFailed(f"{PACKAGE} cannot be installed here (uv's own words are above)")
        except UvMissing as missing:
            raise SideFailed(f"no uv, which would install it: {missing}") from None
        told = subprocess.run([python, "-c", "from bespokelabs import curator"], capture_output=True, check=False)
        if told.returncode:
            raise SideFailed(f"it is installed, and cannot be imported: {told.stderr.decode()[-200:].strip()}")
        _READY.touch()
    return [str(python), "-P", str(PROGRAM)]

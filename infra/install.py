"""Installs a lock into the environment of this Python: `python -m infra.install requirements.lock`.

By uv, in half of pip's time. Where there is no uv, or it fails, pip installs the same, and a line says so.
"""

from __future__ import annotations

import subprocess
import sys

from infra.uv import PIP, UvMissing, uv

EXACTLY = ("--quiet", "--require-hashes", "--no-deps")
"""A lock is complete: nothing is resolved. pip would otherwise look for the newest of what has an extra there."""


def install(lock: str) -> int:
    """The exit status of whichever of the two installed it."""
    try:
        if uv("pip", "install", "--python", sys.executable, *EXACTLY, "--compile-bytecode", "-r", lock) == 0:
            return 0
        reason = "it failed, in its words above"
    except UvMissing as error:
        reason = str(error)
    sys.stderr.write(f"uv cannot install {lock}, so pip does, which takes longer: {reason}\n")
    return subprocess.run([*PIP, "install", *EXACTLY, "-r", lock], check=False).returncode


if __name__ == "__main__":
    sys.exit(install(sys.argv[1]))

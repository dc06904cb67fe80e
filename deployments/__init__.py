"""How it is run and reached: command line, worker, listeners, local stack, provisioning, benchmark."""

import sys
from pathlib import Path

# Somebody's `tasks.py` or `flows/` on PYTHONPATH, which comes before what is installed, would be imported for ours.
_root = str(Path(__file__).resolve().parent.parent)
if sys.path[:1] != [_root]:
    sys.path.insert(0, _root)

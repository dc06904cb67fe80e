"""Which group of `make test` runs what: two have a stack, the third takes the files that need none.

A stack costs half a minute of processor time to bring up, and whoever waits for its servers leaves a core idle. So the
groups that have one take the files that need it, the longest first, and the third one has none and never waits for one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


def note_stack_files(config: pytest.Config, paths: Iterable[Path]) -> None:
    """Let the scheduler know which files need the stack: it sees the names of tests, and only groups collect them.

    pytest-xdist would put a group behind a name; from pytest 9.2 on a name cannot be changed in that way.
    """
    if not hasattr(config, "workerinput"):
        return
    names = sorted({path.relative_to(config.rootpath).as_posix() for path in paths})
    noted = _note(os.getppid())
    beside = noted.with_name(f"{noted.name}.{os.getpid()}")
    beside.write_text(json.dumps(names))
    beside.replace(noted)


def _note(scheduler: int) -> Path:
    """Where the groups of the scheduler's process leave it."""
    return Path(tempfile.gettempdir()) / f"conclave-tests-{os.getuid()}-{scheduler}.json"


class StackScheduling(LoadFileScheduling):
    """File by file as pytest-xdist does it; of three groups or more, the last one gets no file that needs a stack."""

    _stack_files: frozenset[str] | None = None

    def _assign_work_unit(self, node: WorkerController) -> None:
        wanted = not self._is_without_stack(node)
        scope = next((scope for scope in self.workqueue if self._needs_stack(scope) is wanted), None)
        if scope is None and not wanted:
            node.shutdown()
            return
        if scope is not None:
            self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)

    def _is_without_stack(self, node: WorkerController) -> bool:
        return self.numnodes > 2 and node.gateway.id == f"gw{self.numnodes - 1}"

    def _needs_stack(self, scope: str) -> bool:
        """Whether a file needs the stack; every group has said the same by the time that work is given out."""
        if self._stack_files is None:
            note = _note(os.getpid())
            self._stack_files = frozenset(json.loads(note.read_text()))
            note.unlink()
        return scope in self._stack_files


def scheduler(config: pytest.Config, log: Any) -> StackScheduling | None:
    """For `--dist loadfile`, which is what `make test` and its kin ask for."""
    return StackScheduling(config, log) if config.option.dist == "loadfile" else None

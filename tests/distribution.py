"""Which group of `make test` runs what: two have a stack, the third takes the files that need none.

A stack costs half a minute of processor time to bring up, and whoever waits for its servers leaves a core idle. So the
groups that have one take the files that need it, the longest first, and the third one has none and never waits for one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

STACK = "stack"
"""Group of the tests that need the session's stack; pytest-xdist's `--dist loadgroup` puts it behind their names."""


def note_group(items: Iterable[pytest.Item], needs_stack: set[Any]) -> None:
    """Let pytest-xdist know which tests need the stack, by the paths of their files."""
    for item in items:
        if item.path in needs_stack:
            item.add_marker(pytest.mark.xdist_group(STACK))


class StackScheduling(LoadFileScheduling):
    """File by file as pytest-xdist does it; of three groups or more, the last one gets no file that needs a stack."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        wanted = not self._is_without_stack(node)
        scope = next((scope for scope, unit in self.workqueue.items() if _needs_stack(unit) is wanted), None)
        if scope is None and not wanted:
            node.shutdown()
            return
        if scope is not None:
            self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)

    def _is_without_stack(self, node: WorkerController) -> bool:
        return self.numnodes > 2 and node.gateway.id == f"gw{self.numnodes - 1}"


def _needs_stack(unit: Iterable[str]) -> bool:
    return any(name.endswith(f"@{STACK}") for name in unit)

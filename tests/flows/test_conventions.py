"""What a linter cannot say: how flows and steps treat futures."""

from __future__ import annotations

import ast
from pathlib import Path

NO_FUTURES = ("asyncio", "self._process")
"""What has a `wait`, too: that of a process of ours is called in a thread."""


def test_no_flow_or_step_waits_for_a_future_with_the_loop_held_up() -> None:
    """`wait` and `result` of a Prefect future block the loop, and with it every flow: they are awaited instead."""
    blocking = []
    for folder, names in {"flows": ("wait", "result"), "tasks": ("wait",)}.items():
        for path in Path(folder).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text())))
            awaited = {node.value for node in nodes if isinstance(node, ast.Await)}
            for call in nodes:
                waits = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in names
                if waits and call not in awaited and ast.unparse(call.func.value) not in NO_FUTURES:
                    blocking.append(f"{path}:{call.lineno}")
    assert blocking == []

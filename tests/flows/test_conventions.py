"""What a linter cannot say: how flows and steps treat futures."""

from __future__ import annotations

import ast
from pathlib import Path


def test_no_flow_or_step_waits_for_a_future_with_the_loop_held_up() -> None:
    """`wait` and `result` of a Prefect future block the loop, and with it every flow: they are awaited instead."""
    blocking = [
        f"{path}:{call.lineno}"
        for folder in ("flows", "tasks")
        for path in Path(folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in (("wait", "result") if folder == "flows" else ("wait",))
        and ast.unparse(call.func.value) != "asyncio"
    ]
    assert blocking == []

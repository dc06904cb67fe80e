"""One tree of errors with one root: what is not in it is a fault in the program, and is never taken for wrong use."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import typer

from tasks.council.exceptions import ConclaveError, WrongUse

ROOT = Path(__file__).parents[2]
BUILT_IN = {"BaseException", "Exception", "ValueError", "RuntimeError", "OSError", "LookupError", "KeyError"}
OUTSIDE = {"ConclaveError", "WrongUse", "TaskExit"}
"""The roots, and what ends a thread of a task as Python ends one: nobody may catch that by accident."""
LIFTABLE = "blocks/warm/exceptions.py"
"""Of a package that knows nothing of ours; `blocks/ray_agents.py` raises ours in its place."""


def test_every_public_error_has_the_one_root() -> None:
    """A class that derives from Python's own is private to its module, or one of the few that say why."""
    rootless = []
    for folder in ("blocks", "tasks", "deployments", "flows"):
        for file in (ROOT / folder).rglob("*.py"):
            if file == ROOT / LIFTABLE:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef) and BUILT_IN & {ast.unparse(base) for base in node.bases}:
                    rootless.append(node.name)
    assert {name for name in rootless if not name.startswith("_")} == OUTSIDE


async def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError("a fault"), KeyError("a fault"), RuntimeError("a fault")])
def test_a_fault_in_the_program_is_raised_as_it_is(error: Exception) -> None:
    """With its traceback and code 1, and not in a line that blames the user."""
    from deployments.cli.support import guarded, run

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        guarded(fail)
    with pytest.raises(type(error)):
        run(_raise(error))


@pytest.mark.parametrize(("error", "code"), [(WrongUse("task: is missing"), 2), (ConclaveError("it is away"), 6)])
def test_what_is_in_the_tree_is_a_line_and_a_code(error: Exception, code: int) -> None:
    """2 where the user can mend it, 6 where a part is away."""
    from deployments.cli.support import run

    with pytest.raises(typer.Exit) as ended:
        run(_raise(error))
    assert ended.value.exit_code == code

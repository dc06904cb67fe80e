"""One decision a line: no conditional expression inside another one or inside a comprehension, no two `for` in one.

Such a line is short, and has to be unpacked by each who reads it. A lambda or a function inside begins anew.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("blocks", "tasks", "deployments", "flows", "infra")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def problems(node: ast.AST, inside: str | None = None) -> Iterator[tuple[int, str]]:
    """Line and fault of each expression below a node that takes more than one decision; `inside` is what holds it."""
    for child in ast.iter_child_nodes(node):
        holder = inside
        if isinstance(child, ast.IfExp):
            if inside:
                yield child.lineno, f"a conditional expression inside {inside}"
            holder = "a conditional expression"
        elif isinstance(child, COMPREHENSIONS):
            if len(child.generators) > 1:
                yield child.lineno, "a comprehension with two `for`"
            holder = "a comprehension"
        elif isinstance(child, FUNCTIONS):
            holder = None
        yield from problems(child, holder)


def main() -> int:
    """Print every place with its fault; 1 if there is any."""
    count = 0
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for line, fault in problems(ast.parse(file.read_bytes())):
                print(f"{file.relative_to(ROOT)}:{line}: {fault}")
                count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())

"""One decision a line, and at most ten ways through a function.

A line: no conditional expression inside another one or inside a comprehension, no two `for` in one. Such a line is
short, and has to be unpacked by each who reads it. A lambda or a function inside begins anew.

A function: its cyclomatic complexity as radon counts it, which knows the decisions inside expressions, too, as ruff's
C901 does not. A function or class inside counts by itself, a lambda as part of what it stands in.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("blocks", "tasks", "deployments", "flows", "infra")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTIONS = (*DEFINITIONS, ast.Lambda)
MOST = 10
"""Ways through a function."""


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


def complexities(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Every function, and how many ways there are through it."""
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS):
            yield node, 1 + sum(map(_decisions, node.body))


def too_complex(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and fault of each function with more than `MOST` ways through it."""
    for function, complexity in complexities(tree):
        if complexity > MOST:
            yield function.lineno, f"{function.name} has {complexity} ways through it, {MOST} are enough"


def _decisions(node: ast.AST) -> int:
    """Decisions of a node and of what is below it."""
    if isinstance(node, (*DEFINITIONS, ast.ClassDef)):
        return 0
    if isinstance(node, ast.Assert):  # one, whatever it asserts
        return 1
    return _own_decisions(node) + sum(map(_decisions, ast.iter_child_nodes(node)))


def _own_decisions(node: ast.AST) -> int:
    match node:
        case ast.If() | ast.IfExp():
            return 1
        case ast.For() | ast.AsyncFor() | ast.While():
            return 1 + bool(node.orelse)
        case ast.comprehension():
            return 1 + len(node.ifs)
        case ast.BoolOp():
            return len(node.values) - 1
        case ast.Try() | ast.TryStar():
            return len(node.handlers) + bool(node.orelse)
        case ast.Match():
            return len(node.cases) - any(map(_takes_all, node.cases))
    return 0


def _takes_all(case: ast.match_case) -> bool:
    """Whether a case is the `else` of a match."""
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None


def main() -> int:
    """Print every place with its fault; 1 if there is any."""
    count = 0
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_bytes())
            for line, fault in (*problems(tree), *too_complex(tree)):
                print(f"{file.relative_to(ROOT)}:{line}: {fault}")
                count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())

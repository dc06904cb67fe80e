"""Predicates of `questions.jsonl`: each is told a text and its question, and says whether the text is right.

A text was written by a model: these functions read it and never run it.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

BLOCK = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)


def defines_fibonacci(text: str, question: dict[str, Any]) -> bool:
    """Whether a block of code parses and defines `fibonacci(n)` with type hints."""
    return any(_defines(block, "fibonacci") for block in BLOCK.findall(text))


def has_package_json(text: str, question: dict[str, Any]) -> bool:
    """Whether a block is a JSON object with the three keys."""
    return any(_keys(block) >= {"name", "version", "dependencies"} for block in BLOCK.findall(text))


def _defines(code: str, name: str) -> bool:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return False
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
    return any(one.args.args and one.args.args[0].annotation and one.returns for one in functions)


def _keys(block: str) -> set[str]:
    try:
        value = json.loads(block)
    except ValueError:
        return set()
    return set(value) if isinstance(value, dict) else set()

"""The check of one decision a line and few a function: what it counts is what radon counts."""

from __future__ import annotations

import ast

import pytest

from tests.check_expressions import MOST, complexities, problems, too_complex


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", 1),
        ("if a:\n  pass\nelif b:\n  pass\nelse:\n  pass", 3),
        ("return a if b else c", 2),
        ("return a and b and (c or d)", 4),
        ("assert a and b, c or d", 2),
        ("for a in b:\n  pass\nelse:\n  pass", 3),
        ("while a:\n  pass", 2),
        ("async for a in b:\n  pass", 2),
        ("async with a, b:\n  pass", 1),
        ("return {a: b for a, b in c if a if b}", 4),
        ("try:\n  pass\nexcept A:\n  pass\nexcept (B, C):\n  pass\nelse:\n  pass\nfinally:\n  pass", 4),
        ("match a:\n  case 1 | 2:\n    pass\n  case [b] if c:\n    pass\n  case _:\n    pass", 3),
        ("return lambda a: a if b else c", 2),
        ("def g():\n  if a:\n    pass", 1),
        ("class G:\n  if a:\n    pass", 1),
    ],
)
def test_a_function_is_as_complex_as_radon_says(body: str, expected: int) -> None:
    """Decisions inside expressions count; what is defined inside counts by itself."""
    lines = "".join(f"  {line}\n" for line in body.splitlines())
    (function, found), *_ = complexities(ast.parse(f"async def f():\n{lines}"))
    assert (function.name, found) == ("f", expected)


def test_more_ways_than_enough_are_named_where_they_begin() -> None:
    """Also those of a function inside another one, which itself is simple."""
    ifs = "".join("    if a: pass\n" for _ in range(MOST))
    few = ifs.partition("\n")[2]
    source = f"def simple():\n  def inside():\n{few}  def odd():\n{ifs}"
    assert list(too_complex(ast.parse(source))) == [(MOST + 2, "odd has 11 ways through it, 10 are enough")]


def test_a_line_that_takes_two_decisions_is_named() -> None:
    """A function inside begins anew."""
    source = "a = b if c else d if e else f\ng = [h for i in j for h in i]\nk = [(lambda: m if n else o) for p in q]"
    assert [line for line, _ in problems(ast.parse(source))] == [1, 2]

"""The code blocks of simulated texts; each parses, and the manifest loads.

Placeholders as in `wording.py`.
"""

from __future__ import annotations

FUNCTION = """def {name}({arg}: list[int], limit: int = {count}) -> list[int]:
{doc}    if not {arg}:
        return []
    return sorted({arg})[:limit]"""

TYPED_ERROR = '''class {cls}Error(ValueError):
    """Raised when {arg} cannot be used."""


def {name}({arg}: dict[str, int]) -> int:
{doc}    if any(value < 0 for value in {arg}.values()):
        raise {cls}Error("negative value")
    return sum({arg}.values())'''

DATACLASS = """from dataclasses import dataclass


@dataclass(frozen=True)
class {cls}:
    {arg}: str
    limit: int = {count}


def {name}(item: {cls}) -> bool:
{doc}    return bool(item.{arg}) and item.limit > 0"""

GENERATOR = """from collections.abc import Iterable, Iterator


def {name}({arg}: Iterable[str]) -> Iterator[str]:
{doc}    seen: set[str] = set()
    for item in {arg}:
        if item not in seen:
            seen.add(item)
            yield item"""

TEST = """import pytest


@pytest.mark.parametrize("{arg}", ["", "one", "one two"])
def test_{name}({arg}: str) -> None:
{doc}    assert len({arg}.split()) <= {count}"""

TEST_ERROR = """import pytest


def test_{name}_refuses_empty_input() -> None:
{doc}    with pytest.raises(ValueError):
        int("")"""

INTERFACE = '''from typing import Protocol


class {cls}(Protocol):
    def put(self, {arg}: str, value: bytes) -> None: ...

    def get(self, {arg}: str) -> bytes | None: ...


def {name}(store: {cls}, {arg}: str) -> bytes:
{doc}    return store.get({arg}) or b""'''

SCHEMA = """SCHEMA = {{"{arg}": str, "count": int}}


def {name}(row: dict[str, object]) -> list[str]:
{doc}    return [key for key, kind in SCHEMA.items() if not isinstance(row.get(key), kind)]"""

HEALTH = """def {name}_healthy(waiting: int, limit: int = {count}) -> bool:
{doc}    return 0 <= waiting < limit"""

MANIFEST = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: {slug}-app
spec:
  replicas: {count}
  selector:
    matchLabels: {{app: {slug}-app}}
  template:
    metadata:
      labels: {{app: {slug}-app}}
    spec:
      containers:
        - name: {slug}-app
          image: {slug}-app:1.0
          readinessProbe:
            httpGet: {{path: /health, port: 8080}}"""

ANY_ROLE = (FUNCTION, TYPED_ERROR, DATACLASS, GENERATOR)

BY_ROLE = {
    "QA": (TEST, TEST_ERROR),
    "ARCHITECT": (INTERFACE, DATACLASS),
    "DEVOPS": (HEALTH,),
    "DATA": (SCHEMA, GENERATOR),
}

"""Councils from a file into Prefect's blocks, idempotently, and what is wrong with a file in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blocks.council import Council
from blocks.exceptions import BlockMissing
from blocks.loading import fresh
from tasks.council.models import CouncilSpec, Member, Name

DEFAULTS = Path(__file__).with_name("councils.yaml")


class CouncilFileError(ValueError):
    """A council file that cannot be applied; the text names the file, the key and what would be right."""


class _Entry(BaseModel):
    """One council as it stands in a file."""

    model_config = ConfigDict(extra="forbid")

    members: tuple[Member, ...]
    strategy: str = "propose"
    quorum: int | None = None
    grace_s: float | None = None
    deadline_s: float = 300.0


class _File(BaseModel):
    """A file of councils."""

    model_config = ConfigDict(extra="forbid")

    councils: dict[Name, _Entry] = Field(min_length=1)


def read_councils(path: Path) -> dict[str, Council]:
    """The councils of a file. Raises CouncilFileError."""
    try:
        found = _File.model_validate(yaml.safe_load(path.read_text()))
        return {
            name: Council.model_validate({**entry.model_dump(), "members": [dict(m) for m in entry.members]})
            for name, entry in found.councils.items()
        }
    except OSError as error:
        raise CouncilFileError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise CouncilFileError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        raise CouncilFileError(f"{path}: {_explained(error)}") from error


async def apply_councils(councils: dict[str, Council], overwrite: bool) -> dict[str, str]:
    """Save councils that are missing or, with `overwrite`, differ; what was done for each.

    Returns name -> created | updated | unchanged | kept (differs, and was left as it is).
    """
    return {name: await _apply(name, council, overwrite) for name, council in councils.items()}


async def _apply(name: str, council: Council, overwrite: bool) -> str:
    try:
        present: CouncilSpec | None = (await fresh(Council, name)).spec(name)
    except BlockMissing:
        present = None
    if present == council.spec(name):
        return "unchanged"
    if present is not None and not overwrite:
        return "kept"
    await council.save(name, overwrite=True)
    return "created" if present is None else "updated"


def _explained(error: ValidationError) -> str:
    return "; ".join(_line(item) for item in error.errors()[:5])


def _line(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "the file"
    if item["type"] == "extra_forbidden":
        known = {0: _File, 1: _File}.get(len(item["loc"]), _Entry if len(item["loc"]) == 3 else Member)
        return f"{where}: unknown key; the keys are {', '.join(known.model_fields)}"
    return f"{where}: {item['msg'].removeprefix('Value error, ')}"

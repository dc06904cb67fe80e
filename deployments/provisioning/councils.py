"""Councils from a file into Prefect's blocks, idempotently, and what is wrong with a file in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from blocks.connections import connections
from blocks.council import Council
from blocks.documents import all_councils, fresh, save
from blocks.exceptions import BlockMissing, BlockUnusable
from blocks.ownership import claim
from deployments.ownership import own_record
from deployments.settings import Settings
from tasks.council.council import CouncilRules, Member
from tasks.council.exceptions import WrongUse
from tasks.council.plain import SHOWN_INPUT, shortened
from tasks.council.problems import Problem, problems
from tasks.council.prompt_texts import Prompts
from tasks.operate.mirror import mirror_councils

UNUSABLE = "unusable"
DEFAULTS = Path(__file__).with_name("councils.yaml")
BLOCK_NAME_RULE = "1 to 64 of a-z, 0-9 and '-', as Prefect's blocks are"

BlockName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]


class CouncilFileError(WrongUse):
    """A council file that cannot be applied; the text names the file, the key and what would be right."""

    def __init__(self, text: str) -> None:
        super().__init__(shortened(text))


class _Entry(CouncilRules):
    """One council as it stands in a file."""

    model_config = ConfigDict(extra="forbid")


class _File(BaseModel):
    """A file of councils."""

    model_config = ConfigDict(extra="forbid")

    councils: dict[BlockName, _Entry] = Field(min_length=1)


def read_councils(path: Path) -> dict[str, Council]:
    """The councils of a file. Raises CouncilFileError."""
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise CouncilFileError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise CouncilFileError(f"{path} is not YAML: {error}") from error
    try:
        entries = _File.model_validate(content).councils
    except ValidationError as error:
        raise CouncilFileError(f"{path}: {_explained(error)}") from error
    return {name: _council(path, name, entry) for name, entry in entries.items()}


async def apply_councils(councils: dict[str, Council], overwrite: bool) -> dict[str, str]:
    """Save councils that are missing or, with `overwrite`, differ; what was done for each.

    Returns name -> created | updated | unchanged | kept (differs, and was left as it is) | unusable, and why (somebody
    has saved in Prefect's UI what no council can be, and it was left as it is).
    """
    return {name: await _apply(name, council, overwrite) for name, council in councils.items()}


async def apply_own_councils(councils: dict[str, Council], settings: Settings) -> dict[str, str]:
    """Save the councils of the installation that the settings name.

    Raises OtherInstallation, before anything is written, where the names in Prefect belong to another, and
    CouncilFileError where texts have the version of others.
    """
    async with connections():
        record = await own_record(settings)
        await claim(record)
        check_versions(councils, await _texts_in_use())
        done = await apply_councils(councils, overwrite=True)
        await mirror_councils(record)
    return done


def check_versions(councils: Mapping[str, Council], in_use: Mapping[str, Prompts]) -> None:
    """Raise CouncilFileError where a council's texts differ from those that a council has under the same version.

    `in_use` are the texts that stand, by council, the one that is to be saved among them.
    """
    known = {prompts.version: (name, prompts) for name, prompts in in_use.items()}
    for name, council in councils.items():
        if council.prompts is None:
            continue
        whose, prompts = known.setdefault(council.prompts.version, (name, council.prompts))
        if council.prompts.model_dump() != prompts.model_dump():
            raise CouncilFileError(
                f"councils.{name}.prompts.version: other texts stand under {prompts.version} in council {whose}; "
                "a version is told once: give these another one"
            )


async def _texts_in_use() -> dict[str, Prompts]:
    """The texts of their own that councils in Prefect have, by council; one that cannot be read is passed over."""
    prompts = {name: council.prompts for name, council in (await all_councils()).items()}
    return {name: one for name, one in prompts.items() if one is not None}


async def _apply(name: str, council: Council, overwrite: bool) -> str:
    try:
        present: dict[str, Any] | None = (await fresh(Council, name)).rules
    except BlockMissing:
        present = None
    except BlockUnusable as error:
        if not overwrite:
            return f"{UNUSABLE}: {error}"
        present = {}
    if present == council.rules:
        return "unchanged"
    if present is not None and not overwrite:
        return "kept"
    await save(council, name)
    return "created" if present is None else "updated"


def _council(path: Path, name: str, entry: _Entry) -> Council:
    try:
        return Council.model_validate(entry.model_dump())
    except ValidationError as error:
        raise CouncilFileError(f"{path}: {_explained(error, ('councils', name))}") from error


def _explained(error: ValidationError, within: tuple[str, ...] = ()) -> str:
    return "; ".join(_line((*within, *problem.path), problem) for problem in problems(error)[:5])


def _line(key: tuple[str | int, ...], problem: Problem) -> str:
    where = shortened(".".join(str(part) for part in key if part != "[key]"), SHOWN_INPUT) or "the file"
    match problem.kind:
        case "extra_forbidden":
            at_depth = {1: _File.model_fields, 3: _Entry.model_fields}
            known = Prompts.model_fields if "prompts" in key else at_depth.get(len(key), Member.model_fields)
            return f"{where}: unknown key; the keys are {', '.join(known)}"
        case "string_pattern_mismatch" if key[-1] == "[key]":
            return f"{where}: a council is named with {BLOCK_NAME_RULE}"
        case "model_type" | "dict_type":
            inside = {0: "councils: {name: {members: [...]}}", 1: "{name: {members: [...]}}"}
            member = "{version: ..., propose: ...}" if "prompts" in key else "{agent_id: ..., role: ...}"
            return f"{where}: must be keys with values: {inside.get(len(key), member)}"
    return f"{where}: {problem.text}"

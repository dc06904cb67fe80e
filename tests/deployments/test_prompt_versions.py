"""Texts of a council's own under a version: the same name never stands for other words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("importable_prefect")

TEXT = "Write a poem."


def councils(**texts: tuple[str, str]) -> dict[str, Any]:
    """By name a council with the version and the words that it proposes by."""
    from blocks.council import Council

    seats = [{"agent_id": "ann", "role": "DEV"}]
    return {
        name: Council.model_validate({"members": seats, "prompts": {"version": version, "propose": words}})
        for name, (version, words) in texts.items()
    }


def texts_of(found: dict[str, Any]) -> dict[str, Any]:
    """Their texts."""
    return {name: council.prompts for name, council in found.items()}


def test_changed_words_need_another_version() -> None:
    """In the council itself."""
    from deployments.provisioning.councils import CouncilFileError, check_versions

    stored = texts_of(councils(poets=("poets-1", TEXT)))
    check_versions(councils(poets=("poets-1", TEXT)), stored)
    check_versions(councils(poets=("poets-2", TEXT + " Rhyme.")), stored)
    with pytest.raises(CouncilFileError) as refused:
        check_versions(councils(poets=("poets-1", TEXT + " Rhyme.")), stored)
    assert str(refused.value).startswith(
        "councils.poets.prompts.version: other texts stand under poets-1 in council poets; "
    )


def test_two_councils_share_a_version_only_with_its_words() -> None:
    """Whether the other one stands in Prefect or in the same file."""
    from deployments.provisioning.councils import CouncilFileError, check_versions

    stored = texts_of(councils(bards=("poets-1", TEXT)))
    check_versions(councils(poets=("poets-1", TEXT), others=("poets-1", TEXT)), stored)
    check_versions(councils(poets=("poets-1", "Sing."), others=("poets-1", "Sing.")), {})
    for found, before in (
        (councils(poets=("poets-1", "Sing.")), stored),
        (councils(bards=("poets-1", TEXT), poets=("poets-1", "Sing.")), {}),
    ):
        with pytest.raises(CouncilFileError, match=r"^councils.poets.*in council bards"):
            check_versions(found, before)


async def test_nothing_is_saved_where_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither that one nor others of the same file."""
    from deployments.provisioning import councils as module

    stored, saved = councils(poets=("poets-1", TEXT), others=("mine-1", TEXT)), list[str]()

    async def fresh(_kind: Any, name: str) -> Any:
        return stored[name]

    async def all_councils() -> dict[str, Any]:
        return stored

    async def save(_council: Any, name: str) -> None:
        saved.append(name)

    async def nothing(*_: Any) -> None:
        """Whose it is, and what is shown elsewhere, has no part here."""

    stand_ins = {"fresh": fresh, "all_councils": all_councils, "save": save}
    for name in ("claim", "own_record", "mirror_councils"):
        stand_ins[name] = nothing
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(module, name, stand_in)
    settings: Any = SimpleNamespace()
    with pytest.raises(module.CouncilFileError):
        await module.apply_own_councils(councils(others=("mine-2", TEXT), poets=("poets-1", "Sing.")), settings)
    assert saved == []
    await module.apply_own_councils(councils(poets=("poets-2", "Sing.")), settings)
    assert saved == ["poets"]

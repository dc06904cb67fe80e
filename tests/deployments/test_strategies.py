"""Strategies and arms are told of wherever a user chooses or reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from tasks.council.council import CouncilRules
from tasks.council.evaluation.arms import ARMS, RIVALS, VOTES
from tasks.council.stages import Strategy

pytestmark = pytest.mark.usefixtures("importable_prefect")


def rows(file: str) -> list[str]:
    """What the first cells of tables in a page name."""
    return re.findall(r"^\| `([a-z0-9-]+)`", Path(file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_a_strategy_is_told_of_at_every_door(strategy: str) -> None:
    """The council's form, the flow's, the command's help, and both pages."""
    from deployments.cli import deliberations
    from flows.deliberate import deliberate

    told = {
        "the council's form": CouncilRules.model_fields["strategy"].description or "",
        "the flow's form": deliberate.fn.__doc__ or "",
        "the command's help": str(deliberations.deliberate.__annotations__["strategy"]),
    }
    assert {place for place, words in told.items() if f"{strategy}:" not in words} == set()
    assert {page for page in ("README.md", "docs/deciding.md") if strategy not in rows(page)} == set()


def test_an_arm_is_told_of() -> None:
    """In the order of the report's columns."""
    assert [arm for arm in dict.fromkeys(rows("docs/evaluate.md")) if arm in ARMS] == list(ARMS)
    assert set(RIVALS) | set(VOTES) <= set(ARMS)


def test_the_report_says_what_each_arm_is() -> None:
    """Below the figures."""
    from tasks.council.council import CouncilSpec, Member
    from tasks.council.evaluation.arms import Scoresheet
    from tasks.council.evaluation.report import report
    from tasks.council.models import Deliberation, DeliberationRequest

    council = CouncilSpec(name="dev", members=(Member(agent_id="m1", role="DEV"),))
    shown = report(Scoresheet().evaluation(Deliberation.plan("d", DeliberationRequest(task="a"), council)))
    assert [arm for arm, words in ARMS.items() if f"`{arm}`: {words}" not in shown] == []

"""Prompts as data: a version for each set of texts, and what they say agrees with what is demanded."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.council.council import CouncilSpec, Member
from tasks.council.models import Deliberation, DeliberationRequest, Item
from tasks.council.prompt_texts import BUILT_IN, REVIEW_CHARTER, VERSION, Prompts
from tasks.council.prompts.propose import propose_messages
from tasks.council.voting.ballots import MAX_SCORE, MIN_SCORE

MEMBER = Member(agent_id="m1", role="DEV")
OWN = Prompts(version="acme-1", propose="Write a poem.", roles={"DEV": "You rhyme."})


def council(prompts: Prompts | None = None) -> CouncilSpec:
    """A council of one, with prompts of its own or without."""
    return CouncilSpec(name="c", members=(MEMBER,), prompts=prompts)


def plan(prompts: Prompts | None = None) -> Deliberation:
    """What it is asked."""
    return Deliberation.plan("d", DeliberationRequest.read({"task": "Ships"}), council(prompts))


def test_a_plan_carries_the_texts_with_their_version() -> None:
    """So that a resume says the same, whatever was changed since; a plan of before has Conclave's own."""
    assert plan().prompts == BUILT_IN
    assert (plan().prompts.version, plan().version) == (VERSION, 1)
    assert plan(OWN).prompts == OWN
    assert plan(OWN).version == 2, "a reader that passes over them would tell members something else"
    assert Deliberation.from_record(plan(OWN).model_dump(mode="json")) == plan(OWN)
    of_before = plan().model_dump(mode="json", exclude={"prompts"})
    assert Deliberation.from_record(of_before).prompts == BUILT_IN


def test_a_council_brings_its_own() -> None:
    """Texts and roles; a role that it does not name is told by its name."""
    item = Item(id="i", task="Ships")
    system, user = propose_messages(MEMBER, item, OWN)
    assert system["content"] == "Write a poem.\n\n# Your role\nDEV: You rhyme."
    assert user["content"] == "Ships"
    other = MEMBER.model_copy(update={"role": "Pilot"})
    assert propose_messages(other, item, OWN)[0]["content"].endswith("You are an expert Pilot engineer.")


def test_a_council_s_texts_have_a_name_and_conclave_s_a_number() -> None:
    """Else two deliberations under one version were told different things, now or with a later Conclave."""
    for version in (VERSION, "2"):
        with pytest.raises(ValidationError, match=r"prompts\.version: . is of Conclave's kind; give your texts a name"):
            council(Prompts(version=version, propose="Write a poem."))
    with pytest.raises(ValidationError, match="at least 1 character"):
        Prompts(version="acme-1", review=" ")
    older = plan().model_copy(update={"prompts": Prompts(version="0", propose="As it was.")})
    assert Deliberation.from_record(older.model_dump(mode="json")).prompts.propose == "As it was."


def test_roles_are_known_in_any_case_and_the_others_stay() -> None:
    """A council that names one role keeps Conclave's others."""
    own = Prompts(version="acme-1", roles={"Lyric": "You rhyme."})
    assert own.role("lyric") == own.role("LYRIC") == "You rhyme."
    assert own.role("QA") == BUILT_IN.role("QA")


def test_reviewers_are_told_the_bounds_that_their_ballots_are_held_to() -> None:
    """Scores; the form of a short ballot is code."""
    assert f"{MIN_SCORE} is useless, {MAX_SCORE} could not be better" in REVIEW_CHARTER

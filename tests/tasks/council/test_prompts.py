"""What members are told, and what of it they share."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.models import Item, Member
from tasks.council.prompts import CHARTER, DIVERSITY, ROLES, propose_messages, temperature_of

FULL = Item(
    id="i",
    task="Write a queue",
    context={"team": "core", "limits": {"cpu": 2}, "note": "one\ntwo"},
    rubric="Clean",
    requirements=("Use type hints", "Add docstring"),
)


def member(role: str = "DEV", **fields: object) -> Member:
    """A member in a role."""
    return Member.model_validate({"agent_id": "a", "role": role, **fields})


def user(who: Member, item: Item = FULL) -> str:
    """The text of the user's message."""
    return propose_messages(who, item)[1]["content"]


def test_the_messages_are_one_charter_and_one_user_message() -> None:
    """The charter is the same constant for everybody."""
    messages = propose_messages(member(), FULL)
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"] == CHARTER


def test_the_sections_stand_in_their_fixed_order() -> None:
    """The role comes last, as the only part that differs."""
    assert user(member("DEV")) == (
        "# Task\nWrite a queue\n\n"
        '# Context\n- team: core\n- limits: {"cpu": 2}\n- note: one\n  two\n\n'
        "# Rubric\nClean\n\n"
        "# Requirements\n- Use type hints\n- Add docstring\n\n"
        f"# Your role\nDEV: {ROLES['DEV']}"
    )


def test_sections_without_content_are_left_out() -> None:
    """A bare task has no empty headings."""
    assert user(member("QA"), Item(id="i", task="x")) == f"# Task\nx\n\n# Your role\nQA: {ROLES['QA']}"


@pytest.mark.parametrize("role", [*ROLES, "SECURITY"])
def test_every_role_begins_with_its_name(role: str) -> None:
    """Known or not."""
    assert user(member(role)).partition("# Your role\n")[2].startswith(f"{role}: You are a")


def test_an_unknown_role_is_an_expert_of_its_name() -> None:
    """A council can be made of any roles."""
    assert user(member("SECURITY")).endswith("SECURITY: You are an expert SECURITY engineer.")


def test_instructions_replace_the_sentence_of_the_role() -> None:
    """The name of the role stays."""
    assert user(member(instructions="Be brief.")).endswith("# Your role\nDEV: Be brief.")


def test_the_diversity_instruction_is_the_very_last_thing() -> None:
    """So that it costs nothing of the shared start."""
    assert user(member(diversity=True)) == f"{user(member())}\n\n{DIVERSITY}"


@settings(deadline=None)
@given(
    task=st.text(min_size=1).filter(str.strip),
    context=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3),
    requirements=st.lists(st.text(min_size=1).filter(str.strip), max_size=3),
)
def test_members_in_different_roles_share_everything_before_their_role(
    task: str, context: dict[str, object], requirements: list[str]
) -> None:
    """The model server computes the shared start once."""
    item = Item.model_validate({"id": "i", "task": task, "context": context, "requirements": requirements})
    one, other = (
        user(member("DEV"), item),
        user(member("QA", diversity=True, instructions="Look twice"), item),
    )
    shared = os.path.commonprefix([one, other])
    assert shared == one[: one.rindex("# Your role\n") + len("# Your role\n")]


@pytest.mark.parametrize(
    ("temperature", "diversity", "expected"),
    [(0.7, False, 0.7), (0.7, True, 0.91), (1.9, True, 2.0), (2.0, False, 2.0), (0.0, True, 0.0)],
)
def test_diversity_raises_the_temperature_up_to_two(temperature: float, diversity: bool, expected: float) -> None:
    """By 1.3."""
    assert expected == temperature_of(member(temperature=temperature, diversity=diversity))

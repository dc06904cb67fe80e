"""What members are told: one charter for all, then the task, and last what differs between members.

What a task brings along stands between delimiters (`delimiters.py`): a text in it can neither end its section nor begin
another.

A model server caches the longest common start of its prompts. So the system message is one constant, the
task's sections follow in a fixed order, and a member's role and diversity close the message: the members
of a council share everything up to `# Your role`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.council.closed_answers import AnswerFormat, Choice, closed_instruction
from tasks.council.council import Member
from tasks.council.models import Item
from tasks.council.prompt_texts import BUILT_IN, Prompts
from tasks.council.prompts.delimiters import given, mark_of, neutral

DIVERSITY_HEAT = 1.3
MAX_TEMPERATURE = 2.0


def propose_messages(member: Member, item: Item, prompts: Prompts = BUILT_IN) -> list[dict[str, str]]:
    """The chat that asks a member for its proposal, in the form of OpenAI's API."""
    if item.answer_format:
        return closed_messages(member, item, item.answer_format)
    user = f"{task_sections(item)}\n\n# Your role\n{role_of(member, prompts)}"
    return [{"role": "system", "content": prompts.propose}, {"role": "user", "content": user}]


def closed_messages(member: Member, item: Item, form: AnswerFormat) -> list[dict[str, str]]:
    """The chat that asks a closed task: as short as the task is, without charter and role.

    They cost a small model half of its right answers (docs/model-servers.md), as do our tags, and nobody works with the
    text. What stands alone needs no tags; what brings a context, a rubric or requirements along has them, and the form
    of the answer behind it, so that members share all before.
    """
    shown = form.shown_to(f"{item.id}:{member.agent_id}") if isinstance(form, Choice) else form
    return _asked_closed(item, shown)


def bare_messages(item: Item) -> list[dict[str, str]]:
    """The chat that asks a task as one would without a council: alone, with its options in the order given."""
    if item.answer_format:
        return _asked_closed(item, item.answer_format)
    parts = _parts(item)
    return [{"role": "user", "content": _sections(parts) if len(parts) > 1 else neutral(item.task)}]


def _asked_closed(item: Item, form: AnswerFormat) -> list[dict[str, str]]:
    parts, wanted = _parts(item), neutral(closed_instruction(form))
    if len(parts) > 1:
        return [{"role": "user", "content": f"{_sections(parts)}\n\n{wanted}"}]
    return [{"role": "system", "content": wanted}, {"role": "user", "content": neutral(item.task)}]


def temperature_of(member: Member) -> float:
    """Sampling temperature of a member: its own, or 1.3 times that with diversity, at most 2."""
    if not member.diversity:
        return member.temperature
    return round(min(member.temperature * DIVERSITY_HEAT, MAX_TEMPERATURE), 4)


def task_sections(item: Item) -> str:
    """What all members share, in the order that the cache relies on; each part of it fenced."""
    sections = _sections(_parts(item))
    if item.answer_format is None:
        return sections
    return f"{sections}\n\n# Answer format\n{neutral(f'The answer is {item.answer_format.wanted}.')}"


def _sections(parts: Sequence[tuple[str, str]]) -> str:
    """What is brought along, each part under its heading and between its tags."""
    mark = _mark(parts)
    sections = [f"The mark of the tags around what is given is {mark}."]
    sections += [f"# {heading}\n{given(heading.lower(), body, mark)}" for heading, body in parts]
    return "\n\n".join(sections)


def given_mark(item: Item) -> str:
    """The mark of the fences around what an item brings along, the same for all its members and stages."""
    return _mark(_parts(item))


def _mark(parts: Sequence[tuple[str, str]]) -> str:
    return mark_of((body for _, body in parts), "given")


def _parts(item: Item) -> list[tuple[str, str]]:
    """What an item brings along, by heading."""
    context = _bullets(f"{key}: {_plain(value)}" for key, value in item.context.items())
    parts = [("Task", item.task), ("Context", context), ("Rubric", item.rubric or "")]
    return [(heading, body) for heading, body in (*parts, ("Requirements", _bullets(item.requirements))) if body]


def role_of(member: Member, prompts: Prompts) -> str:
    """What only this member is told."""
    told = f"{member.role}: {member.instructions or prompts.role(member.role)}"
    return f"{told}\n\n{prompts.diversity}" if member.diversity else told


def _bullets(lines: Iterable[str]) -> str:
    """A Markdown list; further lines of an entry are indented, so that they stay inside it."""
    return "\n".join("- " + line.replace("\n", "\n  ") for line in lines)


def _plain(value: Any) -> str:
    """A context value as a model reads it best: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

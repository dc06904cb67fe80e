"""What members are told: a charter, a role, and the task.

What a task brings along stands between delimiters (`delimiters.py`): a text in it can neither end its section nor begin
another.

What stands last is what a small model answers: with a role behind the task it writes about the role. So the task
stands last, by itself, and charter and role before it (docs/model-servers.md has the figures). A model server caches
the longest common start of its prompts, and that order leaves it nothing of the task; so a task that is long, which no
sentence behind it can drown, stands first in a fixed order, and the role closes the message: members share everything
up to `# Your role`. Reviews have that order too, since they are long.
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


LONG = 4_000
"""Characters of what a task says and brings along from which on it is worth a model server's cache."""


def propose_messages(member: Member, item: Item, prompts: Prompts = BUILT_IN) -> list[dict[str, str]]:
    """The chat that asks a member for its proposal, in the form of OpenAI's API."""
    if item.answer_format:
        return closed_messages(member, item, item.answer_format)
    parts, role = _parts(item), f"# Your role\n{role_of(member, prompts)}"
    if _is_long(parts):
        user = f"{_sections(parts, _mark(parts))}\n\n{role}"
        return [{"role": "system", "content": prompts.propose}, {"role": "user", "content": user}]
    system = f"{prompts.propose}\n\n{role}"
    return [{"role": "system", "content": system}, {"role": "user", "content": task_last(item)}]


def _is_long(parts: Sequence[tuple[str, str]]) -> bool:
    return sum(len(body) for _, body in parts) >= LONG


def task_last(item: Item) -> str:
    """What a task brings along between its tags, then the task by itself."""
    (_, task), *beside = parts = _parts(item)
    return f"{_sections(beside, _mark(parts))}\n\n{neutral(task)}" if beside else neutral(task)


def closed_messages(member: Member, item: Item, form: AnswerFormat) -> list[dict[str, str]]:
    """The chat that asks a closed task: as short as the task is, without charter and role.

    They cost a small model half of its right answers (docs/model-servers.md), as do our tags, and nobody works with the
    text. The task stands last as that of a proposal does; of a long one the form of the answer does, so that members
    share all before.
    """
    shown = form.shown_to(f"{item.id}:{member.agent_id}") if isinstance(form, Choice) else form
    return _asked_closed(item, shown)


def bare_messages(item: Item) -> list[dict[str, str]]:
    """The chat that asks a task as one would without a council: alone, with its options in the order given."""
    if item.answer_format:
        return _asked_closed(item, item.answer_format)
    return [{"role": "user", "content": task_last(item)}]


def _asked_closed(item: Item, form: AnswerFormat) -> list[dict[str, str]]:
    parts, wanted = _parts(item), neutral(closed_instruction(form))
    if _is_long(parts):
        return [{"role": "user", "content": f"{_sections(parts, _mark(parts))}\n\n{wanted}"}]
    return [{"role": "system", "content": wanted}, {"role": "user", "content": task_last(item)}]


def temperature_of(member: Member) -> float:
    """Sampling temperature of a member: its own, or 1.3 times that with diversity, at most 2."""
    if not member.diversity:
        return member.temperature
    return round(min(member.temperature * DIVERSITY_HEAT, MAX_TEMPERATURE), 4)


def task_sections(item: Item) -> str:
    """What all members share, in the order that the cache relies on; each part of it fenced."""
    sections = _sections(_parts(item), given_mark(item))
    if item.answer_format is None:
        return sections
    return f"{sections}\n\n# Answer format\n{neutral(f'The answer is {item.answer_format.wanted}.')}"


def _sections(parts: Sequence[tuple[str, str]], mark: str) -> str:
    """What is brought along, each part under its heading and between its tags."""
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

"""The one workload: questions, the batch file that asks them, and the very calls that a council makes of them."""

from __future__ import annotations

import json
from pathlib import Path

from blocks.chat import ChatCall, chat_payload
from tasks.council.answer import answer_id, seed_of
from tasks.council.council import CouncilSpec, Member
from tasks.council.models import Item
from tasks.council.prompts.propose import propose_messages, temperature_of
from tasks.council.stages import PROPOSE

PROMPT_CHARS = 1_600
"""Characters of a prompt, charter and role included; the simulator's answers take about 2 000 bytes."""
_SUBJECTS = (
    "a rate limiter",
    "a job queue",
    "a cache",
    "an audit trail",
    "a search index",
    "a retry policy",
    "a parser",
)
_MANNERS = ("for a service with ten replicas", "for a nightly import", "on one small machine", "in a library of others")
_DETAIL = (
    " It has to survive a restart, to say what it refuses and why, and to be read by somebody who knows nothing of it;"
    " name what you would measure first, what may grow without bound, and what you would leave out."
)


class Questions:
    """The questions of a batch, of such a length that this council's prompts have about PROMPT_CHARS characters."""

    def __init__(self, council: CouncilSpec) -> None:
        bare = Item(id="bare", task="?")
        told = max(_length(member, bare) for member in council.members)
        self._room = max(0, PROMPT_CHARS - told)

    def item(self, row: int) -> Item:
        """The question of a row, from 0 on."""
        subject, manner = _SUBJECTS[row % len(_SUBJECTS)], _MANNERS[row // len(_SUBJECTS) % len(_MANNERS)]
        task = f"Question {row}: design {subject} {manner}."
        detail = _DETAIL * (self._room // len(_DETAIL) + 1)
        return Item(id=f"q{row:06d}", task=(task + detail[: max(0, self._room - len(task))]).strip())


def row_of(item_id: str) -> int:
    """The row of an item."""
    return int(item_id[1:])


def call_of(run_id: str, member: Member, asked: Item) -> ChatCall:
    """The call that asks a member for its proposal, as our own agent makes it."""
    request_id = answer_id(run_id, asked.id, PROPOSE, member.agent_id)
    return ChatCall(
        messages=propose_messages(member, asked),
        request_id=request_id,
        seed=seed_of(request_id),
        temperature=temperature_of(member),
        max_tokens=member.max_tokens,
    )


def write_rows(path: Path, rows: int, council: CouncilSpec) -> Path:
    """The batch file: a line for each question, with its id."""
    with path.open("w") as file:
        for asked in map(Questions(council).item, range(rows)):
            file.write(json.dumps({"id": asked.id, "task": asked.task}) + "\n")
    return path


def write_calls(path: Path, rows: int, council: CouncilSpec, model: str, run_id: str) -> Path:
    """The calls of that file, a line each: item, member and request's id, then behind a tab the body."""
    with path.open("w") as file:
        for asked in map(Questions(council).item, range(rows)):
            for member in council.members:
                call = call_of(run_id, member, asked)
                body = chat_payload(call, model, None, False, {})
                head = {"item": asked.id, "member": member.agent_id, "request_id": call.request_id}
                file.write(f"{json.dumps(head)}\t{json.dumps(body)}\n")
    return path


def _length(member: Member, asked: Item) -> int:
    return sum(len(message["content"]) for message in propose_messages(member, asked))

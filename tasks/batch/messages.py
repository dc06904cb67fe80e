"""A chat's messages as the task of a row: `[{"role": "user", "content": "Name it"}]`.

A single message of a user is the task itself. Otherwise the task is all of them in order, as blocks with a blank line
between them, `System: ...`, `User: ...`, `Assistant: ...`, of which the last one is the user's.
"""

from __future__ import annotations

import json
from typing import Any

from tasks.batch.records import Fault
from tasks.council.plain import SHOWN_INPUT, one_line

SPEAKERS = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant"}
"""How the block of each role begins."""
BESIDE = ("role", "content", "name")
"""What a message may have; anything else that says something is refused."""
_FORM = '[{"role": "user", "content": "..."}]'


class _Unusable(ValueError):
    """Why a list of messages is no task."""


def task_of(messages: Any, column: str) -> str | Fault:
    """The task that these messages are, a list or a text of JSON; or what is wrong with them in that column."""
    try:
        return _task(_listed(messages))
    except _Unusable as error:
        return Fault(column, "is no conversation", str(error))


def _listed(messages: Any) -> list[Any]:
    if messages is None or messages == "":
        raise _Unusable("is empty")
    if isinstance(messages, str):
        messages = _parsed(messages)
    if not isinstance(messages, list):
        raise _Unusable(f"is no list of messages; one is {_FORM}")
    if not messages:
        raise _Unusable("is an empty list")
    return messages


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise _Unusable("is nested too deep to be read") from None
    except ValueError as error:
        told = one_line(str(error), SHOWN_INPUT)
        raise _Unusable(f"is a text that is no JSON ({told}); messages are {_FORM}") from None


def _task(messages: list[Any]) -> str:
    turns = [_turn(message, number) for number, message in enumerate(messages, 1)]
    speaker, last = turns[-1]
    if speaker != "User":
        raise _Unusable(f"ends with a message of the {speaker.lower()}; the last one has to be the user's")
    if not last.strip():
        raise _Unusable(f"message {len(turns)}, the user's last one, is empty")
    if len(turns) == 1:
        return last
    return "\n\n".join(f"{who}: {text}" for who, text in turns)


def _turn(message: Any, number: int) -> tuple[str, str]:
    """Who says what."""
    if not isinstance(message, dict):
        raise _Unusable(f"message {number} is no object; one is {_FORM[1:-1]}")
    role = message.get("role")
    if not isinstance(role, str) or role not in SPEAKERS:
        told = "has no role" if role is None else f"has the role {role!r:.100}"
        raise _Unusable(f"message {number} {told}; a council takes {', '.join(SPEAKERS)}")
    for name, value in message.items():
        if name not in BESIDE and value:
            raise _Unusable(f"message {number} has {name!r:.100}, which a council takes none of")
    return SPEAKERS[role], _text(message.get("content"), number)


def _text(content: Any, number: int) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        told = "no content" if content is None else "a content that is neither a text nor a list of parts"
        raise _Unusable(f"message {number} has {told}")
    return "\n".join(_part(part, number) for part in content)


def _part(part: Any, number: int) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        told = "without a type" if kind is None else f"of the type {kind!r:.100}"
        raise _Unusable(f"message {number} has a part {told}; a council takes text alone")
    text = part.get("text")
    if not isinstance(text, str):
        raise _Unusable(f"message {number} has a part of text without a text")
    return text

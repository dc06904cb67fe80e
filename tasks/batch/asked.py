"""What a batch asks: the rows of its agendas, and what the request says for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError

from tasks.batch.row_ids import MAX_ID
from tasks.council.base import MAX_INTEGER, Frozen, JsonObject, Name, Text, digest
from tasks.council.closed_answers import AnswerFormat
from tasks.council.council import CouncilSpec, Deadline, Grace, Members, Rounds
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Budget, Deliberation, DeliberationRequest, ItemRequest, check_id
from tasks.council.problems import first_problem
from tasks.council.stages import Strategy
from tasks.council.window import FIRST, MOST

FIRST_ROWS = 250
"""Rows of the first agenda, which is at work soon."""
MAX_ROWS = 1_000
"""Rows of an agenda: each costs a run of the members' tasks, and is kept as a whole by those who work on it."""
MAX_CHARACTERS = 4_000_000
"""Characters of the tasks of an agenda, beyond which no further row is put into it."""
MAX_AGENDAS = 100_000
MAX_ID_LENGTH = 48
"""Of the id of a batch: those of its agendas are made of it."""
KEY_LENGTH = 32
MAX_ROW_TRIES = 5


class AskedRow(Frozen):
    """A row that is asked: its id as it stands in the file, its number from 1, its line, and its item.

    `key` is a digest of what is asked of whom: a row with the same id and key need not be asked again.
    """

    id: str = Field(max_length=MAX_ID)
    row: int = Field(ge=1, le=MAX_INTEGER)
    line: int = Field(ge=0, le=MAX_INTEGER)
    key: str = Field(pattern=f"^[0-9a-f]{{{KEY_LENGTH}}}$")
    item: ItemRequest
    tries: int = Field(1, ge=1, le=MAX_ROW_TRIES, description="How often it is asked with this one.")


class AgendaBody(Frozen):
    """The rows of one agenda, as they are sent and kept."""

    rows: tuple[AskedRow, ...] = Field(min_length=1, max_length=MAX_ROWS, fail_fast=True)

    @classmethod
    def read(cls, body: Any) -> Self:
        """The rows of a body. Raises InvalidRequest."""
        try:
            agenda = cls.model_validate(body)
        except ValidationError as error:
            problem = first_problem(error)
            raise InvalidRequest(problem.field or "rows", problem.text) from None
        for number, row in enumerate(agenda.rows):
            if row.item.id is None:
                raise InvalidRequest(f"rows.{number}.item.id", "is missing")
        try:
            DeliberationRequest.read({"items": [row.item for row in agenda.rows]})  # its bounds are an agenda's
        except InvalidRequest as error:
            raise InvalidRequest(_in_rows(error.field), error.problem) from None
        return agenda


def _in_rows(field: str) -> str:
    """A field of a request's items as it is found in rows: `rows.3.item.context` for `items.3.context`."""
    return re.sub(r"^items(\.\d+)?", lambda found: f"rows{found[1]}.item" if found[1] else "rows", field)


class BatchRequest(Frozen):
    """What is asked for all rows, and how much of it there is."""

    PACE: ClassVar[tuple[str, ...]] = ("budget", "window", "row_tries", "deadline_s", "grace_s")
    """Fields that say how long and how fast: a batch that is gone on with may have others."""

    agendas: int = Field(ge=1, le=MAX_AGENDAS, description="Agendas that were sent before, numbered from 1.")
    council: Name = Field("dev", description="Name of the council that decides.")
    strategy: Strategy | None = None
    rounds: Rounds | None = None
    members: Members | None = None
    quorum: Members | None = None
    grace_s: Grace | None = None
    deadline_s: Deadline | None = None
    rubric: Text | None = None
    requirements: tuple[Text, ...] = Field((), max_length=100, fail_fast=True)
    context: JsonObject = Field(default_factory=dict)
    answer_format: AnswerFormat | None = None
    metadata: JsonObject = Field(default_factory=dict)
    budget: Budget | None = Field(None, description="Used up, no further row begins.")
    window: int | None = Field(
        None, ge=1, le=MOST, description=f"Calls in flight at each model server at the beginning; {FIRST}."
    )
    row_tries: int = Field(3, ge=1, le=MAX_ROW_TRIES, description="How often a row is asked whose server is away.")

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Self:
        """The request of a body. Raises InvalidRequest."""
        try:
            request = cls.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            problem = first_problem(error)
            raise InvalidRequest(problem.field, problem.text) from None
        request.of_items([ItemRequest(task="a row")])
        return request

    def of_items(self, items: Iterable[ItemRequest]) -> DeliberationRequest:
        """The request of one agenda. Raises InvalidRequest."""
        own = {"agendas", "budget", "window", "row_tries"}
        shared = {name: getattr(self, name) for name in type(self).model_fields if name not in own}
        return DeliberationRequest.read({**shared, "items": tuple(items)})

    def asks(self, council: CouncilSpec) -> str:
        """Identity of whom and how it asks: with another one no row's answer is the same."""
        plan = Deliberation.plan("batch", self.of_items([ItemRequest(task="a row")]), council)
        kept = {"strategy", "rounds", "quorum", "council_digest", "prompts"}
        shared = self.model_dump(mode="json", include={"members", "rubric", "requirements", "context", "answer_format"})
        return digest({**plan.model_dump(mode="json", include=kept), **shared})


def row_key(row_id: str, item: ItemRequest, asks: str) -> str:
    """What makes a row's answer its own: its id, what it asks, and whom and how."""
    asked = item.model_dump(mode="json", exclude={"id"})
    return digest([row_id, asked, asks])[:KEY_LENGTH]


def content_key(item: ItemRequest) -> str:
    """What two rows have in common that ask the same."""
    return digest(item.model_dump(mode="json", exclude={"id"}))


def agendas_of(rows: Iterable[AskedRow]) -> Iterator[tuple[AskedRow, ...]]:
    """The rows in agendas, the first one a small one."""
    most, agenda, characters = FIRST_ROWS, list[AskedRow](), 0
    for row in rows:
        agenda.append(row)
        characters += len(row.item.task)
        if len(agenda) >= most or characters >= MAX_CHARACTERS:
            yield tuple(agenda)
            most, agenda, characters = MAX_ROWS, [], 0
    if agenda:
        yield tuple(agenda)


def agenda_id(batch_id: str, number: int) -> str:
    """The deliberation in which an agenda of a batch is decided."""
    return f"{batch_id}-{number:04d}"


def check_batch_id(value: str) -> str:
    """The value, if it can be the id of a batch. Raises InvalidRequest."""
    if not isinstance(value, str):  # Prefect's API takes anything
        raise InvalidRequest("batch_id", "must be a text")
    check_id(value)
    if value == "run":
        raise InvalidRequest("id", "'run' is a name of ours; take another")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidRequest("id", f"has {len(value)} characters; {MAX_ID_LENGTH} are taken")
    return value

"""The words of the domain as frozen data: what a council is asked, and how it stands.

Everything here is plain data with its rules; nothing reads a clock, a network or a file. Field names of
what leaves the process are the contract of `docs/architecture.md`.
Times are milliseconds where a name ends in `_ms`, seconds where it ends in `_s`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from tasks.council.base import (
    MAX_INTEGER,
    MAX_JSON,
    MAX_NODES,
    NAME_PATTERN,
    NAME_RULE,
    Frozen,
    JsonObject,
    Name,
    Size,
    Text,
    digest,
    size_of,
)
from tasks.council.closed_answers import AnswerFormat
from tasks.council.council import CouncilSpec, Deadline, Grace, Member, Members, Rounds, check_quorum
from tasks.council.exceptions import InvalidRequest
from tasks.council.plain import SHOWN_INPUT, shortened
from tasks.council.problems import Problem, first_problem
from tasks.council.prompt_texts import BUILT_IN, Prompts
from tasks.council.stages import PROPOSE, REVISE, SYNTHESIZE, WAVES, Strategy, kind_of, stages_of
from tasks.council.tally_names import DEFAULT_TALLY

MAX_ITEMS = 10_000
MAX_AGENDA = 64 << 20
"""Bytes of a request, and of its agenda once each item has what the request says for all."""
MAX_AGENDA_NODES = 1_000_000
"""Values in all the contexts of an agenda."""
MAX_REQUIREMENTS = 200_000
"""Characters in the requirements of one item, which every proposal is checked against."""


def _number(value: float) -> str:
    return "a number of more than 64 bits" if isinstance(value, int) and abs(value) > MAX_INTEGER else str(value)


def check_id(value: str, field: str = "id") -> str:
    """The value, if it can be an id. Raises InvalidRequest."""
    if re.fullmatch(NAME_PATTERN, value) is None:
        raise InvalidRequest(field, f"{shortened(repr(value), SHOWN_INPUT)} is no id; one is {NAME_RULE}")
    return value


class Status(StrEnum):
    """State of an item or of a whole deliberation."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return self not in (Status.PENDING, Status.IN_PROGRESS)


class MemberStatus(StrEnum):
    """What became of one member's answer to one item in one stage."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    INVALID = "invalid"
    CANCELLED = "cancelled"
    NOT_ASKED = "not_asked"
    """Only of an outcome: nobody needed this member's answer. No answer has it."""


# --- what -----------------------------------------------------------------------------------------


class Brief(Frozen):
    """What a task may carry beside its text.

    Lists are refused at their first wrong value (`fail_fast`): to tell each of millions takes seconds and gigabytes.
    """

    rubric: Text | None = Field(None, description="How proposals are judged.")
    requirements: tuple[Text, ...] = Field(
        (), max_length=100, fail_fast=True, description="What a proposal has to meet."
    )
    context: JsonObject = Field(default_factory=dict, description="Facts that members should know.")
    answer_format: AnswerFormat | None = Field(
        None, description='Form of a closed answer: {"type": "choice", "options": [...]}, "number" or "text-exact".'
    )

    @model_validator(mode="after")
    def _few_requirements(self) -> Self:
        if (size := sum(map(len, self.requirements))) > MAX_REQUIREMENTS:
            raise ValueError(f"requirements: they have {size:,} characters together; {MAX_REQUIREMENTS:,} are taken")
        return self


class _Sizes(NamedTuple):
    """Bytes of what a brief carries, its texts by field."""

    texts: tuple[int, ...]
    context: Size


def _sizes(brief: Brief) -> _Sizes:
    closed = brief.answer_format.model_dump_json() if brief.answer_format else ""
    texts = (brief.rubric or "", "".join(brief.requirements), closed)
    return _Sizes(tuple(len(text.encode()) for text in texts), size_of(brief.context))


class Item(Brief):
    """One task on the agenda."""

    id: Name
    task: Text


class ItemRequest(Brief):
    """One task as it is asked for; without an id it is numbered."""

    id: Name | None = None
    task: Text


class Budget(Frozen):
    """The most that may be used; what is left out has no bound. Used up, nothing new begins (`budget.py`)."""

    max_calls: int | None = Field(None, ge=1, le=1_000_000_000, description="Calls of models.")
    max_tokens: int | None = Field(None, ge=1, le=1_000_000_000_000, description="Tokens of prompts and answers.")
    max_s: float | None = Field(None, gt=0, le=31_536_000, description="Seconds from its start.")


class DeliberationRequest(Brief):
    """What a user asks for: the parameters of the flow `deliberate`, by whatever door."""

    task: Text | None = Field(None, description="The one task to decide.")
    items: tuple[ItemRequest, ...] | None = Field(None, min_length=1, max_length=MAX_ITEMS, fail_fast=True)
    council: Name = Field("dev", description="Name of the council that decides.")
    strategy: Strategy | None = Field(None, description="How it decides; the council's own where left out.")
    rounds: Rounds | None = Field(None, description="Rounds of revision; the council's own.")
    members: Members | None = Field(None, description="The council's first N members.")
    quorum: Members | None = None
    grace_s: Grace | None = None
    deadline_s: Deadline | None = None
    metadata: JsonObject = Field(default_factory=dict, description="Carried along, never read.")
    budget: Budget | None = Field(None, description="Used up, items that have not begun end CANCELLED.")

    @model_validator(mode="after")
    def _one_agenda(self) -> Self:
        if (self.task is None) == (self.items is None):
            raise ValueError("task: give either one task or a list of items")
        ids = [item.id for item in self.items or () if item.id is not None]
        if len(ids) != len(set(ids)):
            raise ValueError("items: an id appears more than once")
        self._check_size()
        return self

    def _check_size(self) -> None:
        """An item gets the shared brief where it has none, and is stored with it: that sum is what has a bound."""
        shared, total, nodes = _sizes(self), size_of(self.metadata).bytes, 0
        for number, item in enumerate(self.items or ()):
            own, where = _sizes(item), f"items.{number}"
            context = Size(*(sum(both) for both in zip(shared.context, own.context, strict=True)))
            if context.nodes > MAX_NODES or context.bytes > MAX_JSON:
                raise ValueError(
                    f"{where}.context: with the request's it is more than {MAX_JSON:,} bytes or {MAX_NODES:,} values"
                )
            total += len(item.task.encode()) + context.bytes + sum(map(max, shared.texts, own.texts))
            nodes += context.nodes
            if total > MAX_AGENDA or nodes > MAX_AGENDA_NODES:
                most = f"{MAX_AGENDA:,} bytes or {MAX_AGENDA_NODES:,} values"
                raise ValueError(f"{where}: with the items before it is more than {most}")

    @classmethod
    def read(cls, fields: dict[str, Any], beside: tuple[str, ...] = ()) -> DeliberationRequest:
        """A request from its fields; those that are None are left to their defaults. Raises InvalidRequest.

        `beside` are fields that stand beside these where it is sent, and are told with them.
        """
        try:
            return cls.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            problem = first_problem(error)
            raise InvalidRequest(problem.field, _in_words(problem, beside)) from error

    @property
    def given(self) -> dict[str, Any]:
        """The fields that were given, as JSON from which `read` makes the same request."""
        return self.model_dump(mode="json", include=self.model_fields_set)

    @property
    def digest(self) -> str:
        """Identity of the request: the same body gives the same digest.

        Fields that came later are part of it only where they are given: what was asked before stays the same request.
        """
        later = {"budget"} if self.budget is None else set[str]()
        return digest(self.model_dump(mode="json", exclude=later))

    def agenda(self) -> tuple[Item, ...]:
        """The items to decide; the request's rubric, requirements and context apply where an item has none."""
        shared = {name: getattr(self, name) for name in Brief.model_fields}
        if self.items is None:
            return (Item.model_validate({"id": "task", "task": self.task, **shared}),)
        taken = {item.id for item in self.items}
        numbered = (name for number in range(1, 2 * MAX_ITEMS) if (name := f"item-{number:04d}") not in taken)
        return tuple(self._completed(item, item.id or next(numbered)) for item in self.items)

    def _completed(self, item: ItemRequest, item_id: str) -> Item:
        """An item with the request's brief where it has none of its own; contexts are put together."""
        return Item.model_validate(
            {
                "id": item_id,
                "task": item.task,
                "rubric": item.rubric or self.rubric,
                "requirements": item.requirements or self.requirements,
                "context": {**self.context, **item.context},
                "answer_format": item.answer_format or self.answer_format,
            }
        )


def _in_words(problem: Problem, beside: tuple[str, ...]) -> str:
    """What is wrong with a field of a request, so that a user knows what would be right."""
    if problem.kind == "extra_forbidden":
        return _unknown_field(problem.path, beside)
    if problem.path[-1:] == ("answer_format",):
        return 'must be {"type": "number"}, {"type": "text-exact"} or {"type": "choice", "options": [...]}'
    if "literal" not in problem.kind and isinstance(problem.given, int | float):
        return f"{problem.text}, got {_number(problem.given)}"
    return problem.text


def _unknown_field(path: tuple[int | str, ...], beside: tuple[str, ...]) -> str:
    if "answer_format" in path:
        return "is no field of this format; only a choice has one, options"
    if path[0] == "items":
        return f"is no field of an item; the fields are {', '.join(ItemRequest.model_fields)}"
    return f"is no field of a request; the fields are {', '.join((*DeliberationRequest.model_fields, *beside))}"


def _rounds(strategy: Strategy, asked: int | None, council: int) -> int:
    """How often authors revise: as it was asked for, else as the council does. Raises InvalidRequest."""
    if strategy != "escalate":
        return council if asked is None else asked
    if asked:
        raise InvalidRequest("rounds", "escalate asks for no revisions; leave it out, or take another strategy")
    return 0


class Deliberation(Frozen):
    """A request made concrete: everything that a run needs, so that later edits of blocks change nothing."""

    id: Name
    council: CouncilSpec
    agenda: tuple[Item, ...] = Field(min_length=1)
    strategy: Strategy
    rounds: int = 0
    quorum: int = Field(ge=1)
    grace_s: float | None
    deadline_s: float
    request_digest: str
    council_digest: str
    prompts: Prompts = Field(BUILT_IN, description="The texts that its members are told, whatever is changed since.")
    metadata: dict[str, Any]
    budget: Budget | None = None
    copies: tuple[Name, ...] = Field((), description="Members beyond the council's own, in the same roles.")

    @property
    def stages(self) -> tuple[str, ...]:
        """What every item goes through."""
        return stages_of(self.strategy, self.rounds)

    @property
    def posts(self) -> tuple[tuple[Member, str], ...]:
        """Who is called for which stage, in the order of the stages."""
        posts: list[tuple[Member, str]] = []
        for stage in self.stages:
            posts += [(member, stage) for member in self.called_for(stage)]
        return tuple(posts)

    @property
    def servers(self) -> tuple[str, ...]:
        """Names of the model servers that are asked."""
        return tuple(sorted({member.server for member, _ in self.posts}))

    def called_for(self, stage: str) -> tuple[Member, ...]:
        """Who can be asked in a stage: all members, those of a wave, or the one who writes the synthesis."""
        if stage == SYNTHESIZE:
            return (self.council.chair,)
        if self.escalates and stage in WAVES:
            return self.council.members[WAVES[stage]]
        return self.council.members

    @property
    def escalates(self) -> bool:
        """Whether members are asked in waves."""
        return self.strategy == "escalate"

    @property
    def version(self) -> int:
        """Which version of bodies a reader has to know (`blocks/record/envelope.py`).

        1 knows neither waves nor prompts of a council's own, nor another tally than the first one; 2 knows no budget.
        """
        if self.budget is not None:
            return 3
        other_tally = self.council.tally != DEFAULT_TALLY
        return 2 if self.escalates or self.prompts.own or other_tally else 1

    def called_first(self, item: Item) -> tuple[str, ...]:
        """Who is asked first about an item: everybody; of waves one for a closed answer, else two to compare."""
        members = tuple(member.agent_id for member in self.called_for(PROPOSE))
        return members[:1] if self.escalates and item.answer_format else members

    def quorum_of(self, asked: int) -> int:
        """How many answers decide where so many members were asked: the quorum's share of them, rounded up."""
        return -(-self.quorum * asked // len(self.council.members))

    def next_stage(self, stage: str) -> str | None:
        """The stage after one; None after the last."""
        following = self.stages[self.stages.index(stage) + 1 :]
        return following[0] if following else None

    def feeds_revision(self, stage: str) -> bool:
        """Whether a review is held for its critiques, so that every ballot of it matters."""
        return kind_of(self.next_stage(stage) or "") == REVISE

    def asked(self, agent_id: str, stage: str) -> Member:
        """The member of that name, as it is asked in a stage. Raises KeyError."""
        for member in self.called_for(stage):
            if member.agent_id == agent_id:
                return member
        raise KeyError(agent_id)

    @classmethod
    def plan(cls, deliberation_id: str, request: DeliberationRequest, council: CouncilSpec) -> Deliberation:
        """Resolve a request against its council. Raises InvalidRequest."""
        check_id(deliberation_id)
        sized = council.sized(request.members or len(council.members))
        quorum = request.quorum or sized.decides_at
        check_quorum(quorum, len(sized.members))
        strategy = request.strategy or council.strategy
        return cls(
            id=deliberation_id,
            council=sized,
            agenda=request.agenda(),
            strategy=strategy,
            rounds=_rounds(strategy, request.rounds, council.rounds),
            quorum=quorum,
            grace_s=council.grace_s if request.grace_s is None else request.grace_s,
            deadline_s=request.deadline_s or council.deadline_s,
            request_digest=request.digest,
            council_digest=council.digest,
            prompts=council.prompts or BUILT_IN,
            metadata=request.metadata,
            budget=request.budget,
            copies=tuple(member.agent_id for member in sized.members[len(council.members) :]),
        )

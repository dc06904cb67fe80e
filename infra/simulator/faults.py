"""Faults on demand: which request is to go wrong, and how.

A rule is posted to `/sim/faults` or given as `--fault`. The first rule that matches a request decides.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infra.simulator.errors import refused
from infra.simulator.rules import json_object, refusal

Kind = Literal[
    "slow", "500", "503", "429", "404_model", "too_long", "unauthorized", "hang", "cut_off", "empty", "null",
    "garbage", "not_completion", "close", "close_midway", "abort", "stream_error", "think", "think_unclosed",
    "die",
]  # fmt: skip
"""What a fault does: before any work in `completions.py`, to the answer in `distortions.py`."""


class FaultRule(BaseModel):
    """One kind of fault and the requests it befalls. Times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(description="What goes wrong.")
    match: str | None = Field(None, description="Regular expression searched in X-Request-Id.")
    contains: str | None = Field(None, description="Text that the prompt must contain.")
    times: int | None = Field(None, ge=1, description="How many requests; always, where null.")
    probability: float | None = Field(None, gt=0, le=1, description="Chance for a request that matches.")
    delay_s: float | None = Field(None, ge=0, description="Seconds more before the fault or the answer.")
    retry_after_s: int | None = Field(None, ge=0, description="Retry-After of a 429 or 503.")

    @field_validator("match")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"must be a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _slow_says_how_slow(self) -> Self:
        if self.kind == "slow" and self.delay_s is None:
            raise ValueError("delay_s: must be given for kind 'slow', in seconds, such as 2.5")
        return self

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a refusal."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


@dataclass
class ActiveFault:
    """A rule that is on, and how often it has struck."""

    rule: FaultRule
    served: int = 0

    def strikes(self, request_id: str, prompt: str, chance: random.Random) -> bool:
        """Whether the rule befalls this request."""
        rule = self.rule
        if rule.times is not None and self.served >= rule.times:
            return False
        if rule.match is not None and not re.search(rule.match, request_id):
            return False
        if rule.contains is not None and rule.contains not in prompt:
            return False
        return rule.probability is None or chance.random() < rule.probability


class Faults:
    """The rules that are on, in the order they came; the same requests in the same order fail again."""

    def __init__(self, rules: tuple[FaultRule, ...] = ()) -> None:
        """These rules from the start."""
        self._chance = random.Random(0)
        self._active = [ActiveFault(rule) for rule in rules]

    def add(self, rule: FaultRule) -> None:
        """Puts a rule behind the others."""
        self._active.append(ActiveFault(rule))

    def clear(self) -> None:
        """Ends all faults to come; a request that hangs keeps hanging."""
        self._active.clear()

    def pick(self, request_id: str, prompt: str) -> FaultRule | None:
        """The first rule that befalls this request, counted."""
        for fault in self._active:
            if fault.strikes(request_id, prompt, self._chance):
                fault.served += 1
                return fault.rule
        return None

    def listed(self) -> list[dict[str, Any]]:
        """The rules as JSON values, each with how often it has struck."""
        return [{**on.rule.model_dump(exclude_none=True), "served": on.served} for on in self._active]


def parse_rule(text: str | bytes) -> FaultRule:
    """A rule from JSON; raises ApiError (400) that names the field and what would be right."""
    rule = json_object(text, "the rule", '{"kind": "500", "times": 1}')
    try:
        return FaultRule.model_validate(rule)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("kind",):
            raise refused(f"kind: must be one of {', '.join(get_args(Kind))}", "kind") from error
        raise refusal(first, FaultRule.model_fields) from error

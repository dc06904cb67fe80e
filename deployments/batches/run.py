"""One batch through the gateway: its rows are sent, it is followed, and what is decided is written as it comes.

What was sent and how far it was written stands beside OUTPUT. Whoever was killed goes on with that: first the rows of
batches that run, or ran, without anybody who wrote them, then what was not asked yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.client import Client, GatewayError
from tasks.batch.job import BATCHES, DecidedLine, Job, body_of, next_batch_id
from tasks.batch.output.folder import OutputFolder
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Status

FINAL = (Status.COMPLETED.value, Status.FAILED.value, Status.CANCELLED.value)
UNKNOWN = 404
Asked = Mapping[str, Any]


@dataclass
class Told:
    """How a run stands, for whoever watches it: rows to decide, decided ones, and the batch as the gateway has it."""

    rows: int = 0
    decided: int = 0
    began: float = field(default_factory=time.monotonic)
    batch: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Rows decided a second, since the first; 0 where that cannot be said yet."""
        elapsed_s = time.monotonic() - self.began
        return self.decided / elapsed_s if elapsed_s > 0 else 0.0


@dataclass
class Spent:
    """What of a budget earlier batches of the same output used."""

    calls: int = 0
    tokens: int = 0

    def left_of(self, budget: Mapping[str, Any]) -> dict[str, Any]:
        """What of a budget is left. Raises InvalidRequest where that is nothing."""
        left = dict(budget)
        for name, used in (("max_calls", self.calls), ("max_tokens", self.tokens)):
            if left.get(name) is None:
                continue
            left[name] -= used
            if left[name] <= 0:
                raise InvalidRequest(f"budget.{name}", f"{used:,} are used already; give more of it")
        return left


class BatchOfFile:
    """Runs the batch of a job. All methods raise what a client raises."""

    def __init__(self, client: Client, job: Job, asked: Asked) -> None:
        self._client, self._job, self._asked = client, job, asked
        self._watch: Callable[[Told], None] = lambda _: None
        self._output: OutputFolder = job.output
        self.told = Told()
        self.id: str | None = None
        """Of the batch that runs."""

    def watch(self, watcher: Callable[[Told], None]) -> None:
        """Call this whenever something is news."""
        self._watch = watcher

    def run(self) -> str | None:
        """Ask what is still to be asked, and write what is decided; why rows are left undecided, where some are."""
        reason = self.follow_begun()
        batches, asked = self._batches, dict[str, Any]()
        batch_id, agendas = next_batch_id(self._output), 0
        for agendas, rows in enumerate(self._job.agendas(), 1):
            asked = asked or self._left(batches)
            self._client.send_rows(batch_id, agendas, body_of(rows))
        if not agendas:
            return reason
        self._keep([*batches, {"id": batch_id}])
        self._client.start_batch(batch_id, agendas=agendas, **asked)
        self.told = Told(self._job.asked)
        return self._follow(batch_id)

    def follow_begun(self) -> str | None:
        """Write what batches come to that were begun, and not written to their end; why rows of the last are left."""
        reason = None
        for batch in self._batches:
            if "ended" in batch:
                continue
            try:
                reason = self._follow(batch["id"], batch.get("after"))
            except GatewayError as error:
                if error.status != UNKNOWN:
                    raise
                self._note(batch["id"], ended=True)  # it was killed before it was started, or is too old
        return reason

    def cancel(self) -> None:
        """Ask the batch that runs to stop."""
        if self.id is not None:
            self._client.cancel_batch(self.id)

    @property
    def _batches(self) -> list[dict[str, Any]]:
        return list(self._output.states.get(BATCHES, ()))

    def _keep(self, batches: list[dict[str, Any]]) -> None:
        self._output.state(BATCHES, batches)

    def _left(self, batches: list[dict[str, Any]]) -> dict[str, Any]:
        """What is asked, with what earlier batches left of the budget. Raises InvalidRequest where that is nothing."""
        asked = {name: value for name, value in self._asked.items() if value is not None}
        if budget := asked.get("budget"):
            asked["budget"] = self._spent(batches).left_of(budget)
        return asked

    def _follow(self, batch_id: str, after: str | None = None) -> str | None:
        """Write the rows of a batch as they are decided, to its end; why some are not, where some are not."""
        self.told.batch = self._client.batch(batch_id)
        self.id, parts = batch_id, self._output.parts
        try:
            for told in self._client.batch_results(batch_id, after):
                if told is not None:
                    self._job.take(DecidedLine.read(told))
                    self.told.decided += 1
                    after = told["after"]
                else:
                    self._output.flush_due()
                if self._output.parts != parts:
                    parts = self._written(batch_id, after)
                self._watch(self.told)
        finally:
            self._written(batch_id, after)
        body = self.told.batch = self._ended(batch_id)
        spent = {"calls": body.get("calls", 0), "tokens": body.get("tokens", 0)}
        self._note(batch_id, ended=True, spent=spent)
        self.id = None
        self._watch(self.told)
        return body.get("error")

    def _written(self, batch_id: str, after: str | None) -> int:
        """Note how far a batch is written, once all of that is on disk; how many parts there are."""
        self._output.flush()
        self._note(batch_id, after=after)
        return self._output.parts

    def _ended(self, batch_id: str) -> dict[str, Any]:
        """The batch once it has ended: its rows are all told a moment before."""
        while (body := self._client.batch(batch_id))["status"] not in FINAL:
            time.sleep(0.05)
        return body

    def _note(self, batch_id: str, **told: Any) -> None:
        self._keep([{**batch, **told} if batch["id"] == batch_id else batch for batch in self._batches])

    def _spent(self, batches: list[dict[str, Any]]) -> Spent:
        spent = [batch.get("spent", {}) for batch in batches]
        return Spent(*(sum(one.get(name, 0) for one in spent) for name in ("calls", "tokens")))

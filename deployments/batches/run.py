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
from tasks.batch.job import DecidedLine, Job, body_of
from tasks.batch.output.folder import OutputFolder
from tasks.batch.output_batches import OutputBatches
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


class BatchOfFile:
    """Runs the batch of a job. All methods raise what a client raises."""

    def __init__(self, client: Client, job: Job, asked: Asked) -> None:
        self._client, self._job, self._asked = client, job, asked
        self._watch: Callable[[Told], None] = lambda _: None
        self._output: OutputFolder = job.output
        self._batches = OutputBatches(job.output)
        self.told = Told()
        self.id: str | None = None
        """Of the batch that runs."""
        self._was_stopped = False
        """Whether somebody asked the last batch to stop while this followed it."""

    def watch(self, watcher: Callable[[Told], None]) -> None:
        """Call this whenever something is news."""
        self._watch = watcher

    def run(self) -> str | None:
        """Ask what is still to be asked, and write what is decided; why rows are left undecided, where some are."""
        reason = self._follow_begun()
        spent, budget = self._batches.spent, self._asked.get("budget") or {}
        over = reason if self._was_stopped else spent.used_up(budget)
        batch_id, agendas = self._batches.new_id(), 0
        for agendas, rows in enumerate(self._job.agendas(), 1):
            if over is None:
                self._client.send_rows(batch_id, agendas, body_of(rows))
        if not agendas or over is not None:
            return over or reason
        self._batches.add(batch_id)
        asked = {**self._asked, "budget": spent.left_of(budget) or None}
        self._client.start_batch(batch_id, agendas=agendas, **asked)
        self.told = Told(self._job.asked)
        return self._follow(batch_id)

    def stop(self) -> str | None:
        """Ask the batch that runs to stop, and write what it comes to; why rows are left undecided."""
        if self.id is not None:
            self._client.cancel_batch(self.id)
        reason = self._follow_begun()
        if not self._job.rows:  # it was an earlier batch's end that was waited for
            for _ in self._job.agendas():
                pass
        return reason

    def _follow_begun(self) -> str | None:
        """Write what batches come to that were begun, and not written to their end; why rows of the last are left."""
        reason = None
        for batch_id, after in self._batches.not_ended:
            try:
                reason = self._follow(batch_id, after)
            except GatewayError as error:
                if error.status != UNKNOWN:
                    raise
                self._batches.ended(batch_id)  # it was killed before it was started, or is too old
        return reason

    def _follow(self, batch_id: str, after: str | None = None) -> str | None:
        """Write the rows of a batch as they are decided, to its end; why some are not, where some are not."""
        began = self.told.batch = self._client.batch(batch_id)
        if began["status"] == Status.PENDING.value:  # what was accepted may not be in the queue yet
            self._client.start_batch(batch_id, **began["asked"])
        self.id, parts = batch_id, self._output.parts
        try:
            for told in self._client.batch_results(batch_id, after):
                if told is None:
                    self._output.flush_due()
                else:
                    self.told.decided += self._job.take(DecidedLine.read(told))
                    after = told["after"]
                if self._output.parts != parts:
                    parts = self._written(batch_id, after)
                self._watch(self.told)
        finally:
            self._written(batch_id, after)
        body = self.told.batch = self._ended(batch_id)
        self._batches.ended(batch_id, body)
        self._was_stopped = body["status"] == Status.CANCELLED.value != began["status"]
        self.id = None
        self._watch(self.told)
        return body.get("error")

    def _written(self, batch_id: str, after: str | None) -> int:
        """Note how far a batch is written, once all of that is on disk; how many parts there are."""
        self._output.flush()
        self._batches.written(batch_id, after)
        return self._output.parts

    def _ended(self, batch_id: str) -> dict[str, Any]:
        """The batch once it has ended: its rows are all told a moment before."""
        while (body := self._client.batch(batch_id))["status"] not in FINAL:
            time.sleep(0.05)
        return body

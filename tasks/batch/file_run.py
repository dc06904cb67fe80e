"""A batch whose files a worker reads and writes: in places that its operator named, and on its own host.

The rows go onto the record, are decided there, and are written as they come. A run that was killed goes on with the
output that it left: first with the batch that it had begun, then with what was not asked yet.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blocks.background import background
from blocks.exceptions import OtherInstallation
from blocks.record.envelope import Body
from blocks.record.events import Record
from tasks.batch.asked import BatchRequest
from tasks.batch.decided import DecidedRow, Place, decided_rows
from tasks.batch.job import DecidedLine, InputFile, Job, Retry
from tasks.batch.output.folder import Finished, Order, OutputFolder, open_output, states_of
from tasks.batch.output.report import batch_report
from tasks.batch.output_batches import OutputBatches
from tasks.batch.places import Places, is_url
from tasks.batch.records import BatchFileError
from tasks.batch.running import CANCELLED
from tasks.batch.store import put_agenda, put_batch
from tasks.batch.tries import host_of
from tasks.council.decisions import ItemResult
from tasks.council.models import Budget, Status
from tasks.deliberations.plan import council_spec

RUN = "run"
"""State of an output: the flow run that writes it."""
Decide = Callable[[str], Coroutine[Any, Any, Body]]
"""Lets the batch of this id, which stands on the record, be decided; its body at its end."""


class OtherHost(OtherInstallation):
    """A batch's files are those of another host; the text says which."""


@dataclass(frozen=True)
class FileBatch:
    """Files of a batch, and how they are read and written."""

    source: InputFile
    output: str
    asked: dict[str, Any]
    """Of a `BatchRequest`, for all rows."""
    output_format: str | None = None
    order: Order = "completion"
    resume: bool = False
    replace: bool = False
    retry: Retry = "none"
    dedupe: bool = False
    stop_at_bad: bool = False


@dataclass
class FileRun:
    """One run of it, as a flow run. `host` is this one's name."""

    record: Record
    batch: FileBatch
    run: str
    decide: Decide
    host: str = field(default_factory=socket.gethostname)

    async def decided(self) -> tuple[Finished, str, str | None]:
        """Ask what is still to be asked, and make OUTPUT; with its report, and why rows are left undecided.

        Raises BatchFileError, OtherHost, InvalidRequest, and what deciding raises.
        """
        if self._names_local_files:
            await self._require_own_host()
        request = await asyncio.to_thread(self._request)
        asks = request.asks(await council_spec(request.council))
        if self.batch.stop_at_bad:
            await asyncio.to_thread(_require_good, self.batch.source)
        output = await asyncio.to_thread(self._opened, request)
        try:
            job = Job(self.batch.source, output, asks, self.batch.retry, self.batch.dedupe)
            try:
                reason = await self._all(job, output, request)
            except BatchFileError:
                if not OutputBatches(output):
                    await asyncio.to_thread(output.discard)
                raise
            finished = await asyncio.to_thread(job.finish, reason, self.batch.order)
        finally:
            await asyncio.to_thread(output.__exit__, None, None, None)
        report = await asyncio.to_thread(batch_report, finished.summary, Path(self.batch.output).name)
        return finished, report, reason

    async def _all(self, job: Job, output: OutputFolder, request: BatchRequest) -> str | None:
        """Decide what an earlier run had begun, then the rest; why rows are left, where some are."""
        batches, reason = OutputBatches(output), None
        for earlier, after in batches.not_ended:
            reason = await self._one(job, output, earlier, after)
        budget = {} if request.budget is None else request.budget.model_dump()
        spent, batch_id, agendas = batches.spent, batches.new_id(), 0
        over = reason if reason == CANCELLED else spent.used_up(budget)
        asking = job.agendas()
        while (rows := await asyncio.to_thread(next, asking, None)) is not None:
            agendas += 1
            if over is None:
                await put_agenda(self.record, batch_id, agendas, rows)
        if not agendas or over is not None:
            return over or reason
        asked = request.model_copy(update={"agendas": agendas, "budget": _budget(spent.left_of(budget))})
        await put_batch(self.record, batch_id, asked, None)
        await asyncio.to_thread(batches.add, batch_id)
        return await self._one(job, output, batch_id, None)

    async def _one(self, job: Job, output: OutputFolder, batch_id: str, after: str | None) -> str | None:
        """Decide a batch that stands on the record, and write its rows; why some are left, where some are."""
        place = Place.read(after) if after else Place()
        async with background(self.decide(batch_id), self._write(job, output, batch_id, place)) as (deciding, writing):
            await asyncio.wait((deciding, writing), return_when=asyncio.FIRST_EXCEPTION)
            body = await deciding
            await writing
        await asyncio.to_thread(output.flush)
        await asyncio.to_thread(OutputBatches(output).ended, batch_id, body)
        if body["status"] == Status.CANCELLED.value:
            return CANCELLED
        error = body.get("error")
        return None if error is None else str(error)

    async def _write(self, job: Job, output: OutputFolder, batch_id: str, after: Place) -> None:
        """Write the rows of a batch as they are decided, to its end."""
        parts = output.parts
        async with aclosing(decided_rows(self.record, batch_id, after)) as rows:
            async for row in rows:
                await asyncio.to_thread(job.take, _line(row))
                if output.parts != parts:
                    await asyncio.to_thread(output.flush)  # copies of the row, too, are on disk then
                    parts = output.parts
                    await asyncio.to_thread(OutputBatches(output).written, batch_id, str(row.after))

    def _request(self) -> BatchRequest:
        """What is asked, with what the file itself says. Raises InvalidRequest and BatchFileError."""
        asked = dict(self.batch.asked)
        with self.batch.source.opened() as records:
            for name in ("council", "strategy"):
                own = getattr(records, name)
                if own is not None and asked.get(name) not in (None, own):
                    raise BatchFileError(f"{name}: {records.name} asks {own!r} itself; leave it out")
                asked[name] = asked.get(name) or own
        return BatchRequest.read({"agendas": 1, **asked})

    def _opened(self, request: BatchRequest) -> OutputFolder:
        """The output, held for this run; one that this run had left is gone on with. Raises BatchFileError."""
        batch = self.batch
        asked = request.model_dump(mode="json", exclude={"agendas", *BatchRequest.PACE})
        parts_in = self._parts_in()
        own = states_of(batch.output, parts_in).get(RUN) == self.run
        output = open_output(
            batch.output,
            asked,
            resume=batch.resume or own,
            replace=batch.replace and not own,
            output_format=batch.output_format,
            parts_in=parts_in,
        )
        output.state(RUN, self.run)
        return output

    @property
    def _names_local_files(self) -> bool:
        return not (is_url(self.batch.source.named) and is_url(self.batch.output))

    async def _require_own_host(self) -> None:
        """Bind the run to the host whose files it names: the first one that took it. Raises OtherHost."""
        noted = await host_of(self.record, self.run, self.host)
        if noted != self.host:
            told = f"this run reads and writes files of the host {noted}, and this worker is on {self.host}"
            raise OtherHost(f"{told}; a worker there goes on with it")

    def _parts_in(self) -> Path | None:
        """Where the parts of a URL are kept: in the first folder of the operator's. Raises BatchFileError."""
        if not is_url(self.batch.output):
            return None
        places = self.batch.source.places or Places(())
        if not places.folders:
            raise BatchFileError("output: a URL needs a folder of CONCLAVE_BATCHES for its parts")
        return places.folders[0]


def _budget(left: dict[str, Any]) -> Budget | None:
    return Budget.model_validate(left) if left else None


def _require_good(source: InputFile) -> None:
    for row in source.rows():
        if row.item is None and row.fault is not None:
            raise BatchFileError(f"row {row.number}: {row.fault.field}: {row.fault.text}; nothing was asked")


def _line(row: DecidedRow) -> DecidedLine:
    asked = row.row
    result = ItemResult.from_record(row.event.body)
    where = (asked.id, asked.row, asked.line, asked.key, str(asked.item.id))
    return DecidedLine(*where, row.deliberation_id, row.council_digest, str(row.after), result)

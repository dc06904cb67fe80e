"""A folder of files, each a batch once: what is new there, what became of it, and who is told.

The manifest `batches.json` in the output folder names every file that was done, by its path, size and time of change; a
file that was changed since is new.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from prefect import Flow
from prefect.artifacts import acreate_table_artifact
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Failed

from blocks.documents import open_leases
from blocks.record.envelope import Body
from tasks.artifacts.keys import artifact_key
from tasks.artifacts.optional import optional_artifact
from tasks.batch.file_run import FileBatch
from tasks.batch.files import KINDS
from tasks.batch.output.disk import BY_UMASK, replace_bytes
from tasks.batch.output.folder import Finished
from tasks.batch.parameters import file_batch, notification
from tasks.batch.places import Places
from tasks.batch.records import BatchFileError
from tasks.batch.running import CANCELLED
from tasks.council.exceptions import InvalidRequest
from tasks.council.plain import SHOWN_ERROR, error_line, one_line

MANIFEST = "batches.json"
MAX_MANIFEST = 64 << 20
FORMATS = ("parquet", "jsonl", "csv")
OF_FOLDER = ("pattern", "output_folder", "output_format", "every_hours")
"""Parameters that are the folder's; all others are those of each file's batch."""
MAX_HOURS = 10_000
LATE = 1.5
"""Of the time between two runs: after so much of it one was missed."""
NOTIFY_S = 30.0

_log = logging.getLogger("conclave.batch")


class NewFile(NamedTuple):
    """A file that is to be done: its path, its size and time of change, and its batch."""

    path: str
    stamp: list[int]
    batch: FileBatch


@dataclass
class FolderRun:
    """One look at a folder. `given` are the parameters of the flow. Raises BatchFileError and InvalidRequest."""

    given: Mapping[str, Any]
    new_files: list[NewFile] = field(default_factory=list)
    came_to: list[dict[str, str]] = field(default_factory=list)
    missed: str | None = None
    is_cancelled: bool = False
    _done: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.given["pattern"], str):
            raise InvalidRequest("pattern", "must be a text")
        if self.given["output_format"] not in FORMATS:
            raise InvalidRequest("output_format", f"must be one of {', '.join(FORMATS)}")
        hours = self.given["every_hours"]
        if not isinstance(hours, int | float) or not 0 < hours <= MAX_HOURS:
            raise InvalidRequest("every_hours", f"must be a number above 0, and at most {MAX_HOURS:,}")
        self._places = Places.of_worker()
        self._folder = _output_folder(self.given["output_folder"], self._places)

    @property
    def key(self) -> str:
        """Of the lease that keeps two runs from the same files."""
        told = f"{self.given['pattern']} {self._folder}"
        return f"batch-files-{hashlib.sha256(told.encode()).hexdigest()[:24]}"

    async def look(self) -> None:
        """Find what is new, and whether a run was missed. Raises BatchFileError."""
        await asyncio.to_thread(self._look)

    async def note(self, file: NewFile, work: Awaitable[tuple[Finished, str, str | None]]) -> None:
        """Note what became of a file; one that fails keeps nobody from the others."""
        try:
            finished, _, reason = await work
        except (BatchFileError, InvalidRequest) as error:
            self.came_to.append({"file": file.path, "outcome": f"failed: {error_line(error)}"})
            return
        summary = finished.summary
        told = f"{summary.decided:,} of {summary.rows:,} rows decided"
        self.came_to.append({"file": file.path, "outcome": told if reason is None else f"{reason}; {told}"})
        self.is_cancelled = self.is_cancelled or reason == CANCELLED
        if reason is None:
            done = {"stamp": file.stamp, "output": finished.path, "at": datetime.now(UTC).isoformat()}
            self._done[file.path] = {**done, "rows": summary.rows, "decided": summary.decided}
            await asyncio.to_thread(self._save)

    def left_out(self) -> State[Any]:
        """How a run ends that would overlap with another one."""
        _log.warning("a run over %s is left out: another one is still at it", one_line(self.given["pattern"]))
        return Completed(name="Skipped", message="another run over the same files is still at it")

    def _look(self) -> None:
        manifest = _manifest(self._folder / MANIFEST)
        self._done = manifest.get("files", {})
        self.missed = _missed(manifest.get("looked_at"), timedelta(hours=self.given["every_hours"]))
        matching = self._places.matching(self.given["pattern"])
        # What is written may match, too.
        outputs = {one.get("output") for one in self._done.values()} | {str(self._output(path)) for path in matching}
        for path in matching:
            if path in outputs or Path(path).suffix.removeprefix(".").lower() not in KINDS:
                continue
            stat = Path(path).stat()
            stamp = [stat.st_size, stat.st_mtime_ns]
            if self._done.get(path, {}).get("stamp") != stamp:
                self.new_files.append(NewFile(path, stamp, self._batch(path)))
        self._save()

    def _output(self, path: str) -> Path:
        own = hashlib.sha256(path.encode()).hexdigest()[:8]
        return self._folder / f"{Path(path).stem}-{own}.{self.given['output_format']}"

    def _batch(self, path: str) -> FileBatch:
        output = self._output(path)
        had = Path(f"{output}.parts").is_dir()
        chosen = {name: value for name, value in self.given.items() if name not in OF_FOLDER}
        ways = {"resume": had, "replace": not had}
        return file_batch({**UNSAID, **chosen, **ways, "input_file": path, "output_file": str(output)})

    def _save(self) -> None:
        body = {"looked_at": datetime.now(UTC).isoformat(), "files": self._done}
        replace_bytes(self._folder / MANIFEST, json.dumps(body, indent=1).encode(), BY_UMASK)


UNSAID: dict[str, Any] = {
    **dict.fromkeys(("messages_column", "rubric", "requirements", "answer_format", "rounds", "quorum", "grace_s")),
    **dict.fromkeys(("deadline_s", "window", "input_format", "output_format")),
    **dict.fromkeys(("coerce", "keep_duplicates", "stop_at_bad_rows", "dedupe", "retry_failed"), False),
    "order": "completion",
}
"""Parameters of a batch that a folder has no own ones for."""


@asynccontextmanager
async def overlap(key: str) -> AsyncGenerator[bool, None]:
    """Whether nobody else is at the same files; then nobody else will be, while the block runs.

    Prefect's own limit is no lease: a server that is away when its slot is to be renewed ends a run that may last for
    hours.
    """
    leases = await open_leases()
    lease = await leases.take(key)
    try:
        yield lease is not None
    finally:
        if lease is not None:
            await leases.release(lease)


async def folder_state(folder: FolderRun, run: str) -> State[Any]:
    """Show in Prefect what became of the files, and how the run ends."""
    rows = [*folder.came_to, *([{"file": "", "outcome": folder.missed}] if folder.missed else [])]
    with optional_artifact("what became of the files"):
        key = artifact_key("batch-files", run)
        await acreate_table_artifact(rows, key=key, description="Files, and what they came to")
    failed = [one for one in folder.came_to if one["outcome"].startswith("failed")]
    message = f"{len(folder.came_to) - len(failed)} files done, {len(failed)} failed"
    if folder.missed:
        message = f"{folder.missed}; {message}"
    if folder.is_cancelled:
        return Cancelled(message=message)
    if failed:
        return Failed(message=f"{message}: {failed[0]['file']}: {failed[0]['outcome']}"[:SHOWN_ERROR])
    return Completed(message=message)


async def notified(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of a failure: the operator's notification block is told; that it cannot be told is told in the log."""
    named = notification()
    if named is None:
        return
    try:
        async with asyncio.timeout(NOTIFY_S):
            block: Any = await Block.aload(named)
            await block.notify(f"{flow.name} {flow_run.name}: {state.name}: {state.message or ''}", "Conclave")
    except Exception as error:  # noqa: BLE001  # a service elsewhere, with errors of its own
        _log.error("nobody could be told of the failure by %s: %s", named, error_line(error))


def _output_folder(named: object, places: Places) -> Path:
    """The folder of the outputs. Raises BatchFileError and InvalidRequest."""
    if named is None:
        if not places.folders:
            raise BatchFileError("output_folder: CONCLAVE_BATCHES names no folder on this worker")
        named = str(places.folders[0] / "out")
        Path(named).mkdir(mode=0o700, exist_ok=True)
    if not isinstance(named, str):
        raise InvalidRequest("output_folder", "must be a text")
    folder = places.allowed(named)
    if not isinstance(folder, Path) or not folder.is_dir():
        raise BatchFileError(f"output_folder: {one_line(str(folder))} is no folder")
    return folder


def _manifest(path: Path) -> Body:
    """What is done. Raises BatchFileError where that cannot be read: all would be asked again."""
    try:
        if path.stat().st_size > MAX_MANIFEST:
            raise BatchFileError(f"{one_line(str(path))} has more than {MAX_MANIFEST:,} bytes")
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BatchFileError(f"{one_line(str(path))} cannot be read: {error_line(error)}") from error
    files = body.get("files", {}) if isinstance(body, dict) else None
    if not isinstance(files, dict) or not all(isinstance(one, dict) for one in files.values()):
        raise BatchFileError(f"{one_line(str(path))} is no manifest of a folder's batches")
    return body


def _missed(looked_at: object, every: timedelta) -> str | None:
    """What is told of runs that did not take place; None where none was missed."""
    if not isinstance(looked_at, str):
        return None
    try:
        ago = datetime.now(UTC) - datetime.fromisoformat(looked_at)
    except (ValueError, TypeError):  # a time that is none, or one of no zone
        return f"when the last run was cannot be read in {MANIFEST}"
    if ago < every * LATE:
        return None
    return f"runs were missed: the last one was at {looked_at[:16]} UTC, {ago.total_seconds() / 3600:,.1f} hours ago"

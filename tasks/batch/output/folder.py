"""The output of a batch while it runs: parts, their manifest, and at the end the file that they make."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from tasks.batch.output import manifest
from tasks.batch.output.errors import OutputError, OutputFinished, written
from tasks.batch.output.formats import ERRORS, OPENAI, WRITERS, Format, format_of
from tasks.batch.output.index import KEYS, Index, Place, held_of
from tasks.batch.output.lock import Lock
from tasks.batch.output.manifest import Manifest, Part
from tasks.batch.output.order import in_input_order
from tasks.batch.output.parts import numbered_parts, part_found, read_part, why_broken, write_part
from tasks.batch.output.rows import RowCopy, RowResult
from tasks.batch.output.schema import Record, characters_of, record_of
from tasks.batch.output.summary import COLUMNS, Summary, Summing
from tasks.batch.output.target import Target, target_of
from tasks.batch.records import BatchFileError
from tasks.council.plain import one_line

Order = Literal["completion", "input"]


class Limits(NamedTuple):
    """What is held until a part is written: rows, characters, and seconds since the first of them."""

    rows: int = 1_000
    characters: int = 16 << 20
    seconds: float = 10.0


class Standing(NamedTuple):
    """One row that was written: its status, and the number of the part that has its last result."""

    id: str
    key: str
    status: str
    part: int


class Finished(NamedTuple):
    """OUTPUT as it was named, its rows, what they came to, and the second file of the format `openai`."""

    path: str
    rows: int
    summary: Summary
    errors: str | None = None


def open_output(
    output: str | os.PathLike[str],
    asked: Mapping[str, Any],
    *,
    resume: bool = False,
    replace: bool = False,
    output_format: str | None = None,
    parts_in: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008  # it cannot be changed
    clock: Callable[[], float] = time.monotonic,
) -> OutputFolder:
    """The output, held for this batch alone until it is closed.

    `asked` is JSON: whatever has to be the same for a resume. `parts_in` is the folder for the parts of a URL.
    `clock` gives seconds. Raises BatchFileError: OutputInUse while another batch has it, OutputFinished where there is
    nothing to resume, OutputError where files cannot be read or written, else what else has to be given.
    """
    if resume and replace:
        raise BatchFileError("--resume goes on, --replace begins anew; give one of both")
    target = target_of(output, parts_in)
    made = format_of(target.file_name, output_format)
    _require_free(target, made, resume or replace)
    held = Lock(target.parts, target.shown)
    try:
        _require_free(target, made, resume or replace)  # it may have been finished meanwhile
        found = _manifest(target, made, asked, resume, replace)
        return OutputFolder(target, made, found, held, limits, clock)
    except BaseException:
        if held.new_folder:
            _leave(target.parts, held)
        held.release()
        raise


def states_of(output: str | os.PathLike[str], parts_in: Path | None = None) -> Mapping[str, Any]:
    """What the engine kept of an output that is not finished; nothing where there is none that can be read.

    Raises BatchFileError for what can be no output.
    """
    try:
        found = Manifest.load(target_of(output, parts_in).parts / manifest.NAME)
    except OutputError:
        return {}
    return {} if found is None else found.states


class OutputFolder:
    """Takes rows as they are finished, and makes OUTPUT of them. For one thread at a time; closes as a context."""

    def __init__(
        self,
        target: Target,
        output_format: Format,
        found: Manifest,
        held: Lock,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self.told: list[str] = []
        """What was found wrong of earlier parts, in words."""
        self._target, self._format, self._manifest, self._lock = target, output_format, found, held
        self._folder, self._limits, self._clock = target.parts, limits, clock
        self._buffer: list[Record] = []
        self._characters, self._since = 0, 0.0
        self._check_parts()

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.flush()
        except OutputError as problem:
            if error is None:
                raise
            error.add_note(str(problem))
        finally:
            self._lock.release()

    @property
    def batch(self) -> str:
        """The id that this batch has, also when it is resumed."""
        return self._manifest.batch

    @property
    def states(self) -> Mapping[str, Any]:
        """What the engine kept, by name."""
        return self._manifest.states

    def state(self, name: str, value: Any) -> None:
        """Keep a small JSON value; it is on disk when this returns. Raises BatchFileError."""
        self._manifest.keep(name, value)
        self._save()

    @property
    def parts(self) -> int:
        """How many parts there are: one more says that what was taken before is on disk."""
        return len(self._manifest.parts)

    @property
    def counts(self) -> Mapping[str, int]:
        """Rows by status that are in parts: one that was written twice counts twice."""
        return self._manifest.counts

    def write(self, row: RowResult) -> None:
        """Take a row; a part is written once enough is held. Raises OutputError, and still holds the row then."""
        self._take(record_of(row))

    def copy(self, copies: Mapping[str, Iterable[RowCopy]]) -> None:
        """Take the results that stand under these keys once more, for rows that ask the same. Raises OutputError."""
        self.flush()
        parts = list(self._manifest.parts)
        for part, placed in zip(parts, self._index(), strict=True):
            if copies.keys().isdisjoint(self._read(part, ("key",)).column("key").to_pylist()):
                continue
            for record in held_of(self._read(part), placed).to_pylist():
                for copy in copies.get(record["key"], ()):
                    self._take({**record, **copy._asdict(), "item_id": None, "copied_from": record["id"]})

    def _take(self, record: Record) -> None:
        if not self._buffer:
            self._since = self._clock()
        self._buffer.append(record)
        self._characters += characters_of(record)
        full = len(self._buffer) >= self._limits.rows or self._characters >= self._limits.characters
        if full or self._is_due():
            self.flush()

    def flush_due(self) -> None:
        """Write what is held for longer than it may be, where no row came since. Raises OutputError."""
        if self._is_due():
            self.flush()

    def flush(self) -> None:
        """Write what is held as a part; it is on disk when this returns. Raises OutputError, and holds it still."""
        if not self._buffer:
            return
        part = write_part(self._folder, self._manifest.next_number, self.batch, self._buffer)
        self._manifest.parts.append(part)
        self._buffer, self._characters = [], 0
        self._save()

    def standing(self) -> Iterator[Standing]:
        """Every row that was written, once, with its last result; in the order of their writing."""
        self.flush()
        columns, parts = ("id", "key", "status"), list(self._manifest.parts)
        for part, placed in zip(parts, self._index(), strict=True):
            held = held_of(self._read(part, columns), placed)
            for id_, key, status in zip(*(held.column(name).to_pylist() for name in columns), strict=True):
                yield Standing(id_, key, status, part.number)

    def discard(self) -> None:
        """Let go of what was written: nothing was asked for it. Raises OutputError."""
        self._buffer = []
        self._remove()

    def summary(self, elapsed_s: float | None = None) -> Summary:
        """What the rows come to until now."""
        self.flush()
        summing = Summing()
        for part, placed in zip(self._manifest.parts, self._index(), strict=True):
            summing.add(held_of(self._read(part, COLUMNS), placed))
        return summing.summary(elapsed_s)

    def finish(
        self,
        expected: int,
        *,
        order: Order = "completion",
        places: Iterable[Place] | None = None,
        keep_parts: bool = False,
        elapsed_s: float | None = None,
    ) -> Finished:
        """Make OUTPUT of the parts: each of so many rows once, with its last result. Then the parts go.

        `places` says where rows stand in an input that changed since they were written; those that it lacks are left
        out. Raises BatchFileError, which names the rows, where the parts have others than it takes, and OutputError;
        then OUTPUT is as it was, and the parts stay.
        """
        self.flush()
        index = self._index()
        if places is not None:
            index.place(places)
        index.require_all(expected, self._target.shown)
        chunks = self._chunks(index)
        if order == "input":
            characters = sum(part.characters for part in self._manifest.parts)
            chunks = in_input_order(chunks, expected, characters, self._folder)
        summing, rows = Summing(), 0
        with self._files() as files:
            writer = WRITERS[self._format](*files)
            for chunk in chunks:
                rows += chunk.num_rows
                summing.add(chunk.select(COLUMNS))
                writer.write(chunk)
            if rows != expected:
                raise OutputError(f"{self._target.shown}: {rows:,} rows were read back of {expected:,}")
            writer.close()
        if not keep_parts:
            self._remove()
        errors = f"{self._target.shown}{ERRORS}" if self._format == OPENAI else None
        return Finished(self._target.shown, rows, summing.summary(elapsed_s), errors)

    @contextmanager
    def _files(self) -> Generator[list[Any], None, None]:
        """The files that the format has, written together; the one that makes OUTPUT comes to its place last."""
        with ExitStack() as opened, written(self._target.shown):
            yield [opened.enter_context(self._target.writing(ending)) for ending in _endings(self._format)]

    def _index(self) -> Index:
        return Index(self._read(part, KEYS) for part in self._manifest.parts)

    def _chunks(self, index: Index) -> Iterator[pa.Table]:
        for part, placed in zip(self._manifest.parts, index, strict=True):
            yield held_of(self._read(part), placed)

    def _read(self, part: Part, columns: Iterable[str] | None = None) -> pa.Table:
        return read_part(self._folder / part.name, columns)

    def _is_due(self) -> bool:
        return bool(self._buffer) and self._clock() - self._since >= self._limits.seconds

    def _save(self) -> None:
        self._manifest.save(self._folder / manifest.NAME)

    def _check_parts(self) -> None:
        """Leave out parts that are not what was written, take in those that the manifest does not know yet."""
        whole = []
        for part in self._manifest.parts:
            if broken := why_broken(self._folder, part):
                self.told.append(f"{part.name} {broken}: its {part.rows:,} rows count as not done")
                self._set_aside(part.name)
            else:
                whole.append(part)
        named = {part.name for part in whole}
        with written(self._folder):
            for path in self._folder.iterdir():
                if path.name.endswith(".tmp"):
                    path.unlink()
            unnamed = [(number, path) for number, path in numbered_parts(self._folder) if path.name not in named]
        for number, path in unnamed:
            if found := part_found(path, number, self.batch):
                whole.append(found)
            else:
                self.told.append(f"{path.name} is no whole part of this batch: it is set aside")
                self._set_aside(path.name)
        self._manifest.parts = sorted(whole, key=lambda part: part.number)
        self._save()

    def _set_aside(self, name: str) -> None:
        path = self._folder / name
        with written(path), suppress(FileNotFoundError):
            path.rename(path.with_name(f"{name}.broken"))

    def _remove(self) -> None:
        """The parts go at once for whoever resumes: the manifest is the first, and without it there are none."""
        with written(self._folder):
            (self._folder / manifest.NAME).unlink()
            for part in self._manifest.parts:
                (self._folder / part.name).unlink(missing_ok=True)
            self._manifest.parts = []
        _leave(self._folder, self._lock)


def _endings(output_format: Format) -> tuple[str, ...]:
    """What the names of the format's files have behind OUTPUT's."""
    return ("", ERRORS) if output_format == OPENAI else ("",)


def _require_free(target: Target, output_format: Format, may_exist: bool) -> None:
    for ending in _endings(output_format):
        if target.exists(ending) and not may_exist:
            told = "--replace writes another in its place, --resume goes on with what it lacks"
            raise BatchFileError(f"{target.shown}{ending} exists; {told}")


def _manifest(target: Target, output_format: Format, asked: Mapping[str, Any], resume: bool, replace: bool) -> Manifest:
    """That which is there, for a resume; else a new one, on disk."""
    path = target.parts / manifest.NAME
    if replace:
        _emptied(target.parts)
    found = Manifest.load(path)
    if found is None:
        if resume and target.exists():  # parts that are still there are those of a batch that was killed at its end
            raise OutputFinished(f"{target.shown} is finished, and its parts are gone; --replace begins anew")
        if any(True for _ in numbered_parts(target.parts)):
            raise OutputError(f"{one_line(str(target.parts))} has parts and no {manifest.NAME}; --replace begins anew")
        return Manifest.begun(asked)
    if not resume:
        told = "--resume goes on with it, --replace begins anew"
        raise BatchFileError(f"{target.shown}: a batch that is not finished has parts there; {told}")
    found.require_same(asked, target.shown)
    return found


def _emptied(folder: Path) -> None:
    """Take away what a batch wrote there, and nothing else. The manifest is the first to go."""
    with written(folder):
        (folder / manifest.NAME).unlink(missing_ok=True)
        for _, path in list(numbered_parts(folder)):
            path.unlink()
        for path in folder.glob("part-*.parquet.broken"):
            path.unlink()


def _leave(folder: Path, held: Lock) -> None:
    """Take away the lock and the folder, unless there is something in it that is none of ours."""
    with suppress(OSError):
        for path in folder.glob("part-*.parquet.broken"):
            path.unlink()
        held.remove()
        folder.rmdir()

"""The list of deliberations: a projection of the record into SQLite, which can be thrown away and is made anew.

It follows two streams, the keys of the bucket of statuses and the course of the deliberations, and remembers how far
it came with what it learned, in one transaction. A start goes on from there. Nothing waits for it but the list.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from blocks.background import background, batches
from blocks.record import subjects
from blocks.record.envelope import Body, Event
from blocks.record.events import Record
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Status
from tasks.deliberations.read import status_in

T = TypeVar("T")

VERSION = 2
"""Of the tables; another one's are thrown away."""
KEYS, COURSE = subjects.status("*"), "deliberations.>"
BATCH = 500
"""Events in one transaction at most."""
GATHER_S = 0.05
"""How long events are gathered for a transaction, since each one costs those who wait for an answer some time."""
BUSY_S = 5.0
SHOWN = (
    *("id", "status", "degraded", "council", "engine", "counts"),
    *("created_at", "started_at", "completed_at", "winner_id", "error"),
)
_HAS_METADATA = (
    "EXISTS (SELECT 1 FROM json_each(metadata) AS one WHERE one.key = ? AND"
    " CASE WHEN one.type IN ('true', 'false', 'null') THEN one.type ELSE CAST(one.value AS TEXT) END = ?)"
)
"""A value that is no text is asked for as JSON writes it."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS positions (pattern TEXT PRIMARY KEY, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS deliberations (
    id TEXT PRIMARY KEY, status TEXT NOT NULL, council TEXT, owner TEXT, created_at TEXT NOT NULL,
    final INTEGER NOT NULL, metadata TEXT NOT NULL, shown TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_time ON deliberations (created_at DESC, id);
"""


@dataclass(frozen=True)
class Filter:
    """Which deliberations are asked for; what is empty or None does not matter."""

    statuses: tuple[str, ...] = ()
    council: str | None = None
    owner: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def clauses(self) -> tuple[list[str], list[Any]]:
        """Conditions in SQL, and the values in them."""
        where: list[str] = []
        values: list[Any] = []
        if self.statuses:
            where.append(f"status IN ({', '.join('?' * len(self.statuses))})")
            values += self.statuses
        for column, value in (("council", self.council), ("owner", self.owner)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        for name, value in self.metadata.items():
            where.append(_HAS_METADATA)
            values += [name, value]
        return where, values


class Page(NamedTuple):
    """A part of the list, the newest first; `cursor` is where the next one begins, None at the end."""

    deliberations: list[Body]
    cursor: str | None


class Tally(NamedTuple):
    """How many deliberations of a council have a status."""

    council: str
    status: Status
    many: int


class Projection:
    """The list, in a file or, without one, in memory. `run` has to be at work meanwhile."""

    def __init__(self, record: Record, path: Path | None) -> None:
        self._record, self._path = record, path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="conclave-projection")
        self._database: sqlite3.Connection | None = None
        self._positions: dict[str, int] = {}
        self._moved = asyncio.Condition()
        self.caught_up = False
        """Whether it has come as far as the record was when it began."""

    async def run(self) -> None:
        """Follow the record; never ends. Raises RecordError and sqlite3.Error; then run it again."""
        try:
            await self._run()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # damage that is found as it is used
            await self._on_thread(self._discard)
            raise

    async def _run(self) -> None:
        self.caught_up = False
        await self._on_thread(self._open)
        for pattern in (KEYS, COURSE):
            if self._positions.get(pattern, 0) > await self._record.last_sequence(pattern):  # the stream was made anew
                await self._on_thread(self._empty)
        async with self._moved:  # who waits already learns how far the file is
            self._moved.notify_all()
        targets = await self._targets()
        work = [self._follow(pattern) for pattern in (KEYS, COURSE)]
        async with background(*work, self._note_when_caught_up(targets)) as (keys, course, _):
            await asyncio.gather(keys, course)

    async def close(self) -> None:
        """Close the file."""
        await self._on_thread(self._close)
        self._thread.shutdown(wait=False)

    async def page(self, wanted: Filter, limit: int, cursor: str | None = None) -> Page:
        """A page of the list. Raises InvalidRequest for a cursor that is none."""
        where, values = wanted.clauses()
        if cursor is not None:
            created_at, last = _read_cursor(cursor)
            where.append("(created_at < ? OR (created_at = ? AND id > ?))")
            values += [created_at, created_at, last]
        rows = await self._select("id, status, council, created_at, metadata, shown", where, values, limit + 1)
        found = [_shown(row) for row in rows[:limit]]
        more = rows[limit - 1] if len(rows) > limit else None
        return Page(found, None if more is None else _cursor(more["created_at"], more["id"]))

    async def open_ids(self, wanted: Filter, limit: int) -> list[str]:
        """Ids of deliberations that have not ended."""
        where, values = wanted.clauses()
        rows = await self._select("id", [*where, "final = 0"], values, limit)
        return [row["id"] for row in rows]

    async def tallies(self, owner: str | None) -> list[Tally]:
        """How many there are by council and status, of an owner, or of all."""
        where, values = Filter(owner=owner).clauses()
        query = "SELECT council, status, count(*) AS many FROM deliberations"
        query += f" WHERE {' AND '.join(where) or '1'} GROUP BY council, status"

        def read() -> list[Tally]:
            with closing(self._there.execute(query, values)) as rows:
                return [Tally(row["council"] or "", Status(row["status"]), row["many"]) for row in rows]

        return await self._on_thread(read)

    async def about(self, deliberation_id: str) -> Body | None:
        """What is known of one: its council, owner and metadata."""
        rows = await self._select("council, owner, metadata", ["id = ?"], [deliberation_id], 1)
        return {**dict(rows[0]), "metadata": json.loads(rows[0]["metadata"])} if rows else None

    async def catch_up(self, timeout_s: float) -> None:
        """Wait until it has come as far as the record is now. Raises TimeoutError and RecordError."""
        targets = await self._targets()
        async with asyncio.timeout(timeout_s):
            await self._reached(targets)

    # --- following --------------------------------------------------------------------------------

    async def _targets(self) -> dict[str, int]:
        """How far the record is, on each pattern: what else is in their streams is not followed."""
        return {pattern: await self._record.newest(pattern) for pattern in (KEYS, COURSE)}

    async def _note_when_caught_up(self, targets: dict[str, int]) -> None:
        await self._reached(targets)
        self.caught_up = True

    async def _reached(self, targets: dict[str, int]) -> None:
        async with self._moved:
            await self._moved.wait_for(
                lambda: all(self._positions.get(pattern, 0) >= last for pattern, last in targets.items())
            )

    async def _follow(self, pattern: str) -> None:
        """Take in what is stored, many events a transaction, and then each as it comes."""
        while True:
            after = self._positions.get(pattern, 0)
            last = await self._record.newest(pattern)
            if after < last:
                await self._take_stored(pattern, after, last)
                continue
            async with (
                aclosing(self._record.follow(pattern, after, lenient=True)) as events,
                aclosing(batches(events, BATCH, GATHER_S)) as gathered,
            ):
                async for batch in gathered:
                    await self._take(pattern, batch, batch[-1].sequence)

    async def _take_stored(self, pattern: str, after: int, last: int) -> None:
        batch: list[Event] = []
        async with aclosing(self._record.follow(pattern, after, lenient=True)) as events:
            while True:
                try:
                    async with asyncio.timeout(BUSY_S if not batch else 0.05):
                        event = await anext(events)
                except TimeoutError:
                    break
                batch.append(event)
                if len(batch) == BATCH or event.sequence >= last:
                    break
        reached = batch[-1].sequence if batch else after
        if await self._record.next(pattern, reached, lenient=True) is None:  # the rest was deleted meanwhile
            reached = max(reached, last)
        await self._take(pattern, batch, reached)

    async def _take(self, pattern: str, events: Sequence[Event], sequence: int) -> None:
        await self._on_thread(lambda: self._store(pattern, events, sequence))
        async with self._moved:
            self._positions[pattern] = sequence
            self._moved.notify_all()

    # --- in the thread ----------------------------------------------------------------------------

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _select(self, columns: str, where: list[str], values: list[Any], limit: int) -> list[sqlite3.Row]:
        condition = " AND ".join(where) or "1"
        # The columns and conditions are ours; values of others are bound.
        query = f"SELECT {columns} FROM deliberations WHERE {condition} ORDER BY created_at DESC, id LIMIT ?"  # noqa: S608

        def read() -> list[sqlite3.Row]:
            with closing(self._there.execute(query, (*values, limit))) as rows:
                return rows.fetchall()

        return await self._on_thread(read)

    @property
    def _there(self) -> sqlite3.Connection:
        if self._database is None:
            self._open()
        assert self._database is not None
        return self._database

    def _open(self) -> None:
        self._close()
        try:
            self._connect()
        except sqlite3.OperationalError:  # as of one that another program holds, or that cannot be opened
            raise
        except sqlite3.DatabaseError:  # a file that is damaged, or another program's
            self._discard()
            self._connect()

    def _discard(self) -> None:
        """Let the file go, with what SQLite keeps beside it."""
        self._close()
        if self._path is None:
            return
        for end in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)

    def _connect(self) -> None:
        database = sqlite3.connect(self._path or ":memory:", timeout=BUSY_S, check_same_thread=False)
        database.row_factory = sqlite3.Row
        self._database = database
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        whose = json.dumps([VERSION, self._record.installation])
        known = database.execute("SELECT value FROM about WHERE name = 'whose'").fetchone()
        if known is None or known["value"] != whose:
            database.executescript("DROP TABLE IF EXISTS deliberations; DROP TABLE IF EXISTS positions")
            database.execute("INSERT OR REPLACE INTO about VALUES ('whose', ?)", (whose,))
            database.commit()
        database.executescript(_SCHEMA)
        rows = database.execute("SELECT pattern, sequence FROM positions").fetchall()
        self._positions = {row["pattern"]: row["sequence"] for row in rows}

    def _empty(self) -> None:
        with self._there as database:
            database.execute("DELETE FROM deliberations")
            database.execute("DELETE FROM positions")
        self._positions = {}

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _store(self, pattern: str, events: Sequence[Event], sequence: int) -> None:
        with self._there as database:
            for event in events:
                if (change := learned(event)) is not None:
                    _merge(database, event.subject.split(".")[1 if pattern == COURSE else 2], change)
            database.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (pattern, sequence))


def learned(event: Event) -> Body | None:
    """What an event tells of its deliberation: `request`, `owner`, and what is shown; None where it tells nothing."""
    tokens, body = event.subject.split("."), event.body
    time = event.time.isoformat() if event.time else ""
    if not body or len(tokens) != 3:
        return None
    if tokens[0] == "$KV":
        return {**body, "created_at": body.get("requested_at") or body.get("started_at") or time}
    if tokens[2] == "plan":
        return {"request": body.get("request"), "owner": body.get("owner"), "created_at": time}
    return {**body, "created_at": time} if tokens[2] in ("started", "finished") else None


@dataclass(frozen=True)
class Line:
    """A deliberation in the list, as a row has it."""

    id: str
    status: str = Status.PENDING.value
    council: str | None = None
    owner: str | None = None
    created_at: str = ""
    final: bool = False
    metadata: str = "{}"
    shown: str = "{}"

    def after(self, change: Body) -> Line:
        """The line with what was learned; a final status stays, whichever stream is read first."""
        request = change.get("request")
        asked: Body = request if isinstance(request, dict) else {}
        told = {name: change[name] for name in SHOWN if change.get(name) is not None}
        line = replace(
            self,
            council=change.get("council") or asked.get("council") or self.council,
            owner=change.get("owner") or self.owner,
            created_at=_earlier(self.created_at, change["created_at"]),
            shown=_json({**json.loads(self.shown), **told}),
        )
        if asked.get("metadata"):
            line = replace(line, metadata=_json(asked["metadata"]))
        return line._in(status_in(change))

    def _in(self, status: Status | None) -> Line:
        if status is None or (self.final and not status.final):
            return self
        return replace(self, status=status.value, final=status.final)


def _earlier(one: str, other: str) -> str:
    return min(filter(None, (one, other)), default="")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _merge(database: sqlite3.Connection, deliberation_id: str, change: Body) -> None:
    row = database.execute("SELECT * FROM deliberations WHERE id = ?", (deliberation_id,)).fetchone()
    line = (Line(**dict(row)) if row else Line(deliberation_id)).after(change)
    database.execute("INSERT OR REPLACE INTO deliberations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", astuple(line))


def _shown(row: sqlite3.Row) -> Body:
    """A row as it is told; `error_message` says why one has failed, as its result does."""
    same = {name: row[name] for name in ("id", "status", "council", "created_at")}
    shown = json.loads(row["shown"])
    reason = {"error_message": shown.pop("error")} if "error" in shown else {}
    return {**shown, **reason, **same, "metadata": json.loads(row["metadata"])}


def _cursor(created_at: str, last: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([created_at, last]).encode()).decode().rstrip("=")


def _is_ascii(value: object) -> bool:
    return isinstance(value, str) and value.isascii()


def _read_cursor(text: str) -> tuple[str, str]:
    try:
        found = json.loads(base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) != 2 or not all(map(_is_ascii, found)):
        raise InvalidRequest("cursor", "is no cursor; it is the one of the page before")
    return found[0], found[1]

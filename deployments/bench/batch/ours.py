"""Our side: `conclave batch` as it is typed, and what is seen of it meanwhile on NATS and at the gateway.

What this takes of the batch's contract stands in three places: `command_line`, `Told.read` and `agenda_of`.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from blocks.background import background
from deployments.bench.batch.options import Case
from deployments.bench.batch.sides import LOOK_S, Outcome, SideFailed
from deployments.bench.batch.usage import Meter, used

LOOKS_A_SECOND = 5
MARK = 1000
"""Decisions after which memory is first read."""
COMMAND = "command"

Heard = Callable[[str, str], None]
"""Is told the agenda's and the item's id of a decision."""
Decisions = Callable[[Heard], AbstractAsyncContextManager[None]]
Subjects = Callable[[], Any]
"""Gives, when awaited, how many subjects NATS stores."""


def command_line(conclave: Sequence[str], rows: Path, output: Path, council: str, strategy: str) -> list[str]:
    """What a user types."""
    told = ("--council", council, "--strategy", strategy, "--replace", "--json")
    return [*conclave, "batch", str(rows), str(output), *told]


@dataclass(frozen=True)
class Told:
    """What the command tells at its end: the batch's id, and seconds from its run's start to its last decision."""

    id: str
    run_s: float

    @classmethod
    def read(cls, text: str) -> Told:
        """Raises SideFailed where it is not that."""
        try:
            said = json.loads(text[text.index("{") :])
            return cls(str(said["id"]), float(said["seconds"]["run"]))
        except (ValueError, LookupError, TypeError):
            raise SideFailed(f"conclave batch told no `id` and `seconds.run`: {text.strip()[-200:]!r}") from None


def agenda_of(item_path: str, agenda: str) -> str:
    """Where the gateway tells the state of an item."""
    return f"/v1/deliberations/{agenda}/items/{item_path}"


class Seen:
    """The decisions of a batch as they come: how many, when the last, and items to ask for."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.all = asyncio.Event()
        """Set at the last decision of so many."""
        self.count = 0
        self.last_at = 0.0
        self.marked = asyncio.Event()
        """Set at MARK decisions."""
        self.refused = 0
        """Looks at an item that the gateway did not answer with 200."""
        self._items: list[tuple[str, str]] = []

    def __call__(self, agenda: str, item: str) -> None:
        """One more decision."""
        self.count += 1
        self.last_at = time.time()
        self._items.append((agenda, item))
        if self.count >= MARK:
            self.marked.set()
        if self.count >= self._total:
            self.all.set()

    def any(self) -> tuple[str, str] | None:
        """One of the items that were decided, as a pair of agenda and item; None before the first."""
        return random.choice(self._items) if self._items else None


class Conclave:
    """A stack with its worker, which is asked by the command and looked at from outside."""

    def __init__(
        self,
        conclave: Sequence[str],
        gateway: str,
        token: str | None,
        meter: Meter,
        decisions: Decisions,
        subjects: Subjects,
    ) -> None:
        self._conclave, self._gateway, self._token = conclave, gateway, token
        self._meter, self._decisions, self._subjects = meter, decisions, subjects

    async def batch(self, case: Case, rows: Path, output: Path, council: str, patience_s: float) -> Outcome:
        """One batch, from the typed command to OUTPUT. Raises SideFailed."""
        seen = Seen(case.rows)
        looks: list[float] = []
        mark: dict[str, Any] = {}
        output.unlink(missing_ok=True)
        subjects, before = await self._subjects(), self._meter.cpu_s()
        async with self._decisions(seen):
            typed = time.time()
            command = command_line(self._conclave, rows, output, council, case.strategy)
            work = (self._look(seen, looks), self._mark(seen, mark))
            async with background(*work):
                told, command_s = await self._typed(command, patience_s)
            ended = time.time()
        after, memory = self._meter.cpu_s(), self._meter.memory_mib()
        _check_output(output, case.rows)
        cpu_s = {**used(after, before), COMMAND: command_s}
        more: dict[str, Any] = {
            "typed_s": round(ended - typed, 3),
            "heard_s": round(seen.last_at - typed, 3),
            "decided": seen.count,
            "status_ms": percentiles(looks),
            "status_refused": seen.refused,
            "subjects": await self._subjects() - subjects,
            "mark": mark | {"subjects": mark["subjects"] - subjects} if mark else {},
            "ended": await self._ended(told.id),
        }
        return Outcome(told.run_s, case.calls, cpu_s, memory, more)

    async def agenda(self, case: Case, items: Sequence[Mapping[str, str]], council: str, patience_s: float) -> Outcome:
        """So many councils as the one agenda of a deliberation, from the POST to the last decision."""
        seen, before = Seen(case.rows), self._meter.cpu_s()
        body = {"items": list(items), "council": council, "strategy": case.strategy}
        async with self._decisions(seen), self._session() as session:
            started = time.time()
            async with session.post("/v1/deliberations", json=body) as answer:
                if answer.status != 202:
                    raise SideFailed(f"the gateway: {answer.status} {(await answer.text())[:200]}")
            try:
                async with asyncio.timeout(patience_s):
                    await seen.all.wait()
            except TimeoutError:
                raise SideFailed(f"{seen.count} of {case.rows} items decided in {patience_s:g} s") from None
        after = self._meter.cpu_s()
        return Outcome(seen.last_at - started, case.calls, used(after, before), self._meter.memory_mib())

    async def _typed(self, command: Sequence[str], patience_s: float) -> tuple[Told, float]:
        """What it tells, and the processor seconds that it used."""
        pipe = asyncio.subprocess.PIPE
        before = _children_s()
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(patience_s), background(self._keep_looking()):
                out, err = await process.communicate()
        except TimeoutError:
            raise SideFailed(f"conclave batch was not done within {patience_s:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise SideFailed(f"conclave batch ended with {process.returncode}: {_last(err) or _last(out)}")
        return Told.read(out.decode()), round(_children_s() - before, 3)

    async def _keep_looking(self) -> None:
        while True:
            self._meter.cpu_s()
            await asyncio.sleep(LOOK_S)

    async def _look(self, seen: Seen, looks: list[float]) -> None:
        """Asks for the state of an item, now and again; notes how long the answer took, in seconds."""
        async with self._session() as session:
            while True:
                await asyncio.sleep(1 / LOOKS_A_SECOND)
                if (one := seen.any()) is None:
                    continue
                started = time.perf_counter()
                async with session.get(agenda_of(one[1], one[0])) as answer:
                    await answer.read()
                    seen.refused += answer.status != 200
                looks.append(time.perf_counter() - started)

    async def _mark(self, seen: Seen, mark: dict[str, Any]) -> None:
        await seen.marked.wait()
        mark |= {"memory_mib": self._meter.memory_mib(), "subjects": await self._subjects(), "decided": seen.count}

    async def _ended(self, batch: str) -> dict[str, Any]:
        """What the gateway tells of a batch."""
        async with self._session() as session, session.get(f"/v1/batches/{batch}") as answer:
            if answer.status != 200:
                raise SideFailed(f"the gateway knows no batch {batch}: {answer.status}")
            told = await answer.json()
        wanted = ("status", "counts", "started_at", "last_decision_at", "finished_at")
        return {name: told.get(name) for name in wanted} | {"agendas": told.get("agendas")}

    def _session(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return aiohttp.ClientSession(self._gateway, headers=headers)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99 of 100, the most, in milliseconds, and how many there are; empty where there is none."""
    if not seconds:
        return {}
    ordered = sorted(1000 * each for each in seconds)
    most = len(ordered) - 1
    found = {"p50": ordered[most // 2], "p99": ordered[min(most, len(ordered) * 99 // 100)], "max": ordered[most]}
    return {name: round(value, 2) for name, value in found.items()} | {"looks": len(ordered)}


def _children_s() -> float:
    """Processor seconds of all children that have ended, with theirs."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _check_output(output: Path, rows: int) -> None:
    try:
        with output.open("rb") as file:
            written = sum(bool(line.strip()) for line in file)
    except OSError as error:
        raise SideFailed(f"there is no OUTPUT: {error.strerror}") from None
    if written != rows:
        raise SideFailed(f"OUTPUT has {written} rows of {rows}")


def _last(text: bytes) -> str:
    """The last line that has words in it: errors stand in a box."""
    lines = [line.strip(" \u2502") for line in text.decode(errors="replace").splitlines() if re.search(r"\w", line)]
    return lines[-1][:300] if lines else ""

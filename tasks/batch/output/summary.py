"""What a batch came to, in figures: read by columns, of which a few numbers a row stay."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.batch.output.rows import INVALID, NOT_ASKED
from tasks.council.engines import SIMULATOR
from tasks.council.models import Status
from tasks.council.plain import SHOWN_INPUT, one_line

_KEYS = ["council", "strategy", "engine"]
_TOKENS = ["usage_prompt_tokens", "usage_completion_tokens"]
COLUMNS = [
    *("id", "item_id", "deliberation_id", "status", "error", "degraded", "decided_by", "copied_from", "calls"),
    *("winner_score", "agreement", "vote_share", "duration_ms", "completed_at"),
    *_KEYS,
    *_TOKENS,
]
"""What is read of a row."""
MAX_REASONS = 1_000
"""Reasons that are told apart; further ones are counted together."""
OTHERS = "other reasons"
BINS = 20
_AT_ONCE = 10_000
_NUMBERS = re.compile(r"\b[0-9a-f]{8,}\b|\d+(?:[.,]\d+)*")
_NO_COUNCIL = "none"


class Problem(NamedTuple):
    """Rows without a decision that have one status and, but for numbers and ids, one error."""

    status: str
    reason: str
    rows: int


class Group(NamedTuple):
    """What was asked of one council by one strategy on one engine."""

    council: str
    strategy: str
    engine: str
    rows: int
    decided: int
    degraded: int
    calls: int
    tokens: int


class Spread(NamedTuple):
    """How values lie: how many there are, their quantiles, and counts between the edges, of which there is one more."""

    values: int
    p50: float
    p90: float
    p99: float
    mean: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Summary:
    """A batch in figures. Tokens, calls and times are of rows that were asked, not of their copies."""

    rows: int
    decided: int
    degraded: int
    """Of those that were decided."""
    failed: int
    bad: int
    """Rows of the input that could not be asked."""
    pending: int
    """Rows that were not asked, or were cut off by a cancel or a budget: `--resume` asks them."""
    copied: int
    statuses: dict[str, int]
    problems: tuple[Problem, ...]
    """Most rows first."""
    calls: int
    prompt_tokens: int
    completion_tokens: int
    elapsed_s: float | None
    """As it was given, else from the first row's begin to the last one's end."""
    groups: tuple[Group, ...]
    latency_s: Spread | None
    """From a row's begin to its end, decided or not; the edges are on a scale of logarithms."""
    scores: Spread | None
    """Of winners, 0 to 1: votes where there were ballots, else the checks'."""
    agreement: Spread | None
    """Kendall's W of the ballots."""
    vote_share: Spread | None
    """Of the proposals that give the decided answer."""

    @property
    def engines(self) -> tuple[str, ...]:
        """Whatever stood behind the answers."""
        return tuple(sorted({group.engine for group in self.groups}))

    @property
    def simulated(self) -> bool:
        """Whether texts come from the simulator."""
        return SIMULATOR in self.engines

    @property
    def rows_per_s(self) -> float | None:
        """Rows that were decided, without copies, by the second."""
        asked = sum(group.decided for group in self.groups)
        return asked / self.elapsed_s if self.elapsed_s else None

    @property
    def calls_per_s(self) -> float | None:
        """Calls by the second."""
        return self.calls / self.elapsed_s if self.elapsed_s else None

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
        said = asdict(self) | {
            "engines": list(self.engines),
            "simulated": self.simulated,
            "rows_per_s": self.rows_per_s,
            "calls_per_s": self.calls_per_s,
            "problems": [one._asdict() for one in self.problems],
            "groups": [one._asdict() for one in self.groups],
        }
        for name in ("latency_s", "scores", "agreement", "vote_share"):
            spread: Spread | None = getattr(self, name)
            said[name] = spread and spread._asdict()
        return said

    def lines(self) -> list[str]:
        """The same for a terminal, one plain line each."""
        return list(_lines(self))


def _lines(found: Summary) -> Iterator[str]:
    if found.simulated:
        yield "SIMULATED    these texts come from the simulator, not from a model: a rehearsal"
    degraded = f" ({found.degraded:,} degraded)" if found.degraded else ""
    told = f"{found.decided:,} decided{degraded}, {found.failed:,} failed, {found.bad:,} bad, {found.pending:,} pending"
    yield f"rows         {found.rows:,}: {told}"
    for problem in found.problems[:BINS]:
        yield f"  {one_line(problem.status.lower()):10} {problem.rows:,}: {one_line(problem.reason, SHOWN_INPUT)}"
    if found.copied:
        yield f"copied       {found.copied:,}"
    yield f"calls        {found.calls:,}; tokens {found.prompt_tokens:,} in, {found.completion_tokens:,} out"
    if found.elapsed_s:
        pace = f"{found.rows_per_s:,.2f} rows, {found.calls_per_s:,.2f} calls a second"
        yield f"time         {found.elapsed_s:,.1f} s: {pace}"
    for name, spread in (("latency, s", found.latency_s), ("score", found.scores), ("Kendall's W", found.agreement)):
        if spread:
            yield f"{name:12} {spread.p50:.3g} at half of the rows, {spread.p90:.3g} at 90 %, {spread.p99:.3g} at 99 %"
    for group in found.groups if len(found.groups) > 1 else ():
        name = one_line(f"{group.council} by {group.strategy} on {group.engine}")
        figures = f"{group.decided:,} decided, {group.calls:,} calls, {group.tokens:,} tokens"
        yield f"  {name}: {group.rows:,} rows, {figures}"


class Summing:
    """Takes chunks of rows, and keeps sums, counts and some 30 bytes a row."""

    def __init__(self) -> None:
        self._waiting: list[pa.Table] = []
        self._rows: Counter[str] = Counter()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._groups = pd.DataFrame()
        self._values: dict[str, list[np.ndarray]] = {}
        self._began, self._ended = pd.Timestamp.max.tz_localize("UTC"), pd.Timestamp.min.tz_localize("UTC")

    def add(self, chunk: pa.Table) -> None:
        """Rows, of the columns `COLUMNS`."""
        self._waiting.append(chunk)
        if sum(one.num_rows for one in self._waiting) >= _AT_ONCE:
            self._fold()

    def summary(self, elapsed_s: float | None = None) -> Summary:
        """What all of them come to; `elapsed_s` where somebody measured it, in seconds."""
        self._fold()
        statuses = {name.removeprefix("status "): n for name, n in self._rows.items() if name.startswith("status ")}
        groups = tuple(Group(*key, *row) for key, *row in _rows_of(self._groups))
        asked, bad = self._rows["rows"], statuses.get(INVALID, 0)
        pending = statuses.get(NOT_ASKED, 0) + statuses.get(Status.CANCELLED.value, 0)
        problems = [Problem(status, reason, n) for (status, reason), n in self._reasons.most_common()]
        return Summary(
            rows=asked,
            decided=self._rows["decided"],
            degraded=self._rows["degraded"],
            failed=asked - self._rows["decided"] - bad - pending,
            bad=bad,
            pending=pending,
            copied=self._rows["copied"],
            statuses=statuses,
            problems=tuple(problems),
            calls=self._rows["calls"],
            prompt_tokens=self._rows[_TOKENS[0]],
            completion_tokens=self._rows[_TOKENS[1]],
            elapsed_s=self._elapsed() if elapsed_s is None else elapsed_s,
            groups=groups,
            latency_s=self._spread("latency_s", logarithmic=True),
            scores=self._spread("winner_score"),
            agreement=self._spread("agreement"),
            vote_share=self._spread("vote_share"),
        )

    def _fold(self) -> None:
        if not self._waiting:
            return
        table, self._waiting = pa.concat_tables(self._waiting), []
        self._add_reasons(table)
        frame = table.drop_columns(["id", "item_id", "deliberation_id", "error"]).to_pandas()
        frame["decided"] = (frame["status"] == Status.COMPLETED) & frame["decided_by"].notna()
        frame["degraded"] = frame["decided"] & frame["degraded"].eq(True)
        frame["copied"] = frame["copied_from"].notna()
        self._rows.update(
            {"rows": len(frame), **{name: int(frame[name].sum()) for name in ("decided", "degraded", "copied")}}
        )
        self._rows.update({f"status {name}": int(n) for name, n in frame["status"].value_counts().items()})
        self._add_asked(frame[~frame["copied"]])
        for name in ("winner_score", "agreement", "vote_share"):
            self._keep(name, frame.loc[frame["decided"], name])

    def _add_asked(self, frame: pd.DataFrame) -> None:
        """What was asked, and what it took."""
        for name in ("calls", *_TOKENS):
            self._rows[name] += int(frame[name].sum())
        ended = frame[frame["completed_at"].notna() & frame["duration_ms"].notna()]
        if len(ended):
            took = pd.to_timedelta(ended["duration_ms"].clip(0, 10**12), unit="ms")
            self._began = min(self._began, (ended["completed_at"] - took).min())
            self._ended = max(self._ended, ended["completed_at"].max())
            self._keep("latency_s", ended["duration_ms"] / 1000)
        known = frame[frame["council"].notna()]
        sums = pd.DataFrame(
            {
                **{key: known[key].fillna(_NO_COUNCIL).astype(str) for key in _KEYS},
                "rows": 1,
                "decided": known["decided"].astype(int),
                "degraded": known["degraded"].astype(int),
                "calls": known["calls"].fillna(0).astype(int),
                "tokens": known[_TOKENS].fillna(0).sum(axis=1).astype(int),
            }
        )
        self._groups = (
            pd.concat([self._groups.reset_index(), sums.reset_index(drop=True)])
            .groupby(_KEYS)[["rows", "decided", "degraded", "calls", "tokens"]]
            .sum()
        )

    def _keep(self, name: str, values: pd.Series[Any]) -> None:
        self._values.setdefault(name, []).append(values.dropna().to_numpy(np.float32))

    def _add_reasons(self, table: pa.Table) -> None:
        names = ("status", "error", "decided_by", "id", "item_id", "deliberation_id")
        for status, error, by, *ids in zip(*(table.column(name).to_pylist() for name in names), strict=True):
            if status == Status.COMPLETED and by is not None:
                continue
            told = (status, reason_of(error or "no reason is given", ids))
            if told not in self._reasons and len(self._reasons) >= MAX_REASONS:
                told = (status, OTHERS)
            self._reasons[told] += 1

    def _elapsed(self) -> float | None:
        return (self._ended - self._began).total_seconds() if "latency_s" in self._values else None

    def _spread(self, name: str, logarithmic: bool = False) -> Spread | None:
        values = np.concatenate(self._values.get(name) or [np.empty(0, np.float32)])
        if not len(values):
            return None
        edges = _logarithmic(values) if logarithmic else np.linspace(0, 1, BINS + 1)
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        middle, most, nearly_all = (float(one) for one in np.quantile(values, (0.5, 0.9, 0.99)))
        mean = float(values.mean(dtype=np.float64))
        return Spread(len(values), middle, most, nearly_all, mean, tuple(map(float, edges)), tuple(map(int, counts)))


def summary_of(chunks: Iterable[pa.Table], elapsed_s: float | None = None) -> Summary:
    """What rows come to, in chunks that have at least the columns `COLUMNS`."""
    summing = Summing()
    for chunk in chunks:
        summing.add(chunk.select(COLUMNS))
    return summing.summary(elapsed_s)


def reason_of(error: str, ids: Iterable[str | None]) -> str:
    """An error without its row's ids, and with `#` for every number, so that alike ones are one reason."""
    for own in ids:
        if own and len(own) > 2:
            error = re.sub(rf"(?<![\w-]){re.escape(own)}(?![\w-])", "#", error)
    return one_line(_NUMBERS.sub("#", error), SHOWN_INPUT)


def _logarithmic(values: np.ndarray) -> np.ndarray:
    """Edges that grow by the same factor, from the least value to the largest."""
    least = max(float(values.min()), 1e-3)
    return np.geomspace(least * 0.99, max(float(values.max()), least) * 1.01, BINS + 1)


def _rows_of(groups: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    for key, row in groups.iterrows():
        yield key, *map(int, row)

"""The report of a batch as Markdown; whatever rows and models wrote is shown as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.batch.output.disk import BY_UMASK, replace_bytes
from tasks.batch.output.pictures import Picture, pictures_of
from tasks.batch.output.summary import Group, Spread, Summary
from tasks.council.report.markup import escape, table

MAX_PROBLEMS, MAX_GROUPS = 50, 50
"""Rows that its tables have; further ones are counted."""
_SIMULATED = "**Simulated: these texts come from the simulator, not from a model. A rehearsal, not decisions.**"
_SHOWN = 300


def batch_report(found: Summary, name: str, pictures: Iterable[Picture] | None = None) -> str:
    """What a batch came to, of the output with that name; its pictures are drawn unless they are given."""
    return "\n\n".join(_sections(found, name, pictures_of(found) if pictures is None else pictures)) + "\n"


def write_report(path: Path, text: str) -> None:
    """Put a report there whole. Raises OutputError."""
    replace_bytes(path, text.encode(), BY_UMASK)


def _sections(found: Summary, name: str, pictures: Iterable[Picture]) -> Iterator[str]:
    yield f"# Batch {escape(name, _SHOWN)}"
    if found.simulated:
        yield _SIMULATED
    yield table(("what", ">rows"), _counts(found))
    if found.problems:
        yield "## Without a decision"
        shown = found.problems[:MAX_PROBLEMS]
        yield table(
            ("status", ">rows", "reason"),
            ((escape(one.status), f"{one.rows:,}", escape(one.reason, _SHOWN)) for one in shown),
        )
        yield from _more(len(found.problems) - MAX_PROBLEMS, "reasons")
    yield "## What it took"
    yield table(("what", ">figure"), _costs(found))
    if found.groups:
        yield "## By council"
        columns = ("council", "strategy", "engine", ">rows", ">decided", ">degraded", ">calls", ">tokens")
        yield table(columns, map(_group, found.groups[:MAX_GROUPS]))
        yield from _more(len(found.groups) - MAX_GROUPS, "councils")
    spreads = [*_spreads(found)]
    if spreads:
        yield "## How values lie"
        yield table(("of rows", ">values", ">mean", ">p50", ">p90", ">p99"), spreads)
    for picture in pictures:
        yield f"![{picture.title}]({picture.address})"


def _counts(found: Summary) -> Iterator[tuple[str, str]]:
    for what, count in (
        ("all", found.rows),
        ("decided", found.decided),
        ("of them degraded", found.degraded),
        ("failed", found.failed),
        ("bad in the input", found.bad),
        ("not asked", found.pending),
        ("copied from an equal row", found.copied),
    ):
        yield what, f"{count:,}"


def _costs(found: Summary) -> Iterator[tuple[str, str]]:
    yield "calls", f"{found.calls:,}"
    yield "prompt tokens", f"{found.prompt_tokens:,}"
    yield "completion tokens", f"{found.completion_tokens:,}"
    if found.elapsed_s:
        yield "seconds", f"{found.elapsed_s:,.1f}"
        yield "rows a second", f"{found.rows_per_s:,.2f}"
        yield "calls a second", f"{found.calls_per_s:,.2f}"


def _group(one: Group) -> tuple[str, ...]:
    names = (escape(text, _SHOWN) for text in (one.council, one.strategy, one.engine))
    return *names, *(f"{count:,}" for count in one[3:])


def _spreads(found: Summary) -> Iterator[tuple[str, ...]]:
    named: tuple[tuple[str, Spread | None], ...] = (
        ("seconds until the end", found.latency_s),
        ("score of the winner", found.scores),
        ("Kendall's W of ballots", found.agreement),
        ("share of the vote", found.vote_share),
    )
    for name, spread in named:
        if spread:
            values = (spread.mean, spread.p50, spread.p90, spread.p99)
            yield name, f"{spread.values:,}", *(f"{value:.3g}" for value in values)


def _more(count: int, what: str) -> Iterator[str]:
    if count > 0:
        yield f"And {count:,} more {what}."

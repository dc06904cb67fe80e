"""What a file of rows comes to before anything is asked, as the verb batch tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from deployments.cli.support import NOT_UP, WRONG_USE, fail, guarded, put, say
from tasks.council.plain import SHOWN_INPUT, one_line, plain_json, shortened

if TYPE_CHECKING:
    from tasks.batch.checking import Checked
    from tasks.batch.job import InputFile
    from tasks.batch.records import Records
    from tasks.batch.rows import Row
    from tasks.council.council import CouncilSpec
    from tasks.council.models import Deliberation, DeliberationRequest

SOME_BAD = 3


def dry_run_of(source: InputFile, council: str | None, strategy: str | None, as_json: bool) -> None:
    """Read and check all rows; say what they would take."""
    from tasks.batch.checking import check_rows
    from tasks.council.models import Deliberation

    def checked() -> tuple[str, Checked, Deliberation]:
        with source.opened() as records:
            request = request_for(records, council, strategy)
            plan = Deliberation.plan("batch", request, council_named(request.council))
            return records.name, check_rows(records, source.columns, source.keep_duplicates), plan

    name, found, plan = guarded(checked)
    if as_json:
        typer.echo(plain_json({"input": name, **_document(found, plan)}))
    else:
        _show(name, found, plan)
    if found.bad:
        raise typer.Exit(SOME_BAD)


def request_for(records: Records, council: str | None, strategy: str | None) -> DeliberationRequest:
    """Whom a row asks, as the options say or the file itself does. Raises WrongUse where they differ."""
    from tasks.council.exceptions import WrongUse
    from tasks.council.models import DeliberationRequest

    for option, given, own in (("council", council, records.council), ("strategy", strategy, records.strategy)):
        if given is not None and own is not None and given != own:
            raise WrongUse(f"--{option}: {records.name} asks {own!r} itself; leave it out")
    asked = {
        "council": records.council if council is None else council,
        "strategy": records.strategy if strategy is None else strategy,
    }
    return DeliberationRequest.read({"task": "a row", **asked})


def council_named(name: str) -> CouncilSpec:
    """The council of that name, from the gateway."""
    from deployments.cli.gateway import asked, client
    from tasks.council.council import CouncilSpec

    found = asked(lambda: client().councils())
    if not found:
        fail("no council is known yet: the stack is still starting; `conclave status` says what is up", NOT_UP)
    if name not in found:
        fail(f"council: {name!r} is unknown; known are {', '.join(found) or 'none'}", WRONG_USE)
    return CouncilSpec.from_record(found[name])


def _document(found: Checked, plan: Deliberation) -> dict[str, Any]:
    from tasks.batch.checking import calls_by_stage

    calls = calls_by_stage(plan, found.good)
    return {
        "council": plan.council.name,
        "strategy": plan.strategy,
        "rows": found.rows,
        "good": found.good,
        "bad": found.bad,
        "bad_by_reason": dict(found.reasons.most_common()),
        "place": found.place,
        "first_bad": [_bad_row(row) for row in found.first_bad],
        "characters": found.characters,
        "replaced_surrogates": found.replaced,
        "notes": dict(found.notes.most_common()),
        "most_calls": calls,
        "most_calls_total": sum(calls.values()),
    }


def _bad_row(row: Row) -> dict[str, Any]:
    field, reason, text = row.fault or ("", "", "")
    where = {"line": row.line, "row": row.number, "id": row.id}
    return {**where, "field": field, "reason": reason, "text": text}


def _show(name: str, found: Checked, plan: Deliberation) -> None:
    """What was found on standard output, the bad rows on standard error."""
    from tasks.batch.checking import calls_by_stage

    if found.first_good is not None:
        item = found.first_good
        facts = f"; context {one_line(plain_json(item.context), SHOWN_INPUT)}" if item.context else ""
        put(f"first        {item.id}: {one_line(item.task, SHOWN_INPUT)}{facts}")
    for row in found.first_bad:
        say(f"{one_line(name)} {told_bad(row, found.place)}")
    if found.bad > len(found.first_bad):
        say(f"and {found.bad - len(found.first_bad):,} more bad rows")
    put(f"rows         {found.rows:,}: {found.good:,} good, {found.bad:,} bad")
    for reason, count in found.reasons.most_common():
        put(f"  bad        {count:,}: {one_line(reason)}")
    put(f"characters   {found.characters:,} of tasks and contexts")
    if found.replaced:
        put(f"replaced     {found.replaced:,} lone halves of characters by U+FFFD")
    for note, count in found.notes.most_common():
        put(f"note         {count:,}: {one_line(note)}")
    calls = calls_by_stage(plan, found.good)
    put(f"calls        {sum(calls.values()):,} at most, of council {plan.council.name} by {plan.strategy}")
    for stage, count in calls.items():
        put(f"  {stage:10} {count:,}")
    say("nothing was asked")


def told_bad(row: Row, place: str) -> str:
    """A bad row in one line: where it is, its id, the field, and what is wrong."""
    number = [] if place == "row" else [f"row {row.number}"]
    id_ = [] if row.id is None else [f"id {shortened(repr(row.id), SHOWN_INPUT)}"]
    beside = f" ({', '.join(number + id_)})" if number or id_ else ""
    field, _, text = row.fault or ("", "", "")
    return f"{place} {row.line}{beside}: {one_line(field)}: {one_line(text)}"

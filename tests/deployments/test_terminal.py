"""What a deliberation looks like in a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.plain import plain_json

STATUS = {"started_at": "2026-01-01T00:00:00Z", "counts": {"items": 1}, "links": {"prefect_run": "http://ui"}}
MEMBERS = ("agent-architect-001", "agent-architect-002", "agent-architect-003")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OTHERS = {voter: tuple(author for author in MEMBERS if author != voter) for voter in MEMBERS}


def planned(**fields: Any) -> Any:
    """A council of three that is asked for something."""
    from tasks.council.council import CouncilSpec, Member
    from tasks.council.models import Deliberation, DeliberationRequest

    seats = tuple(Member(agent_id=one, role="ARCHITECT") for one in MEMBERS)
    request = DeliberationRequest.read({"task": "Design a queue", **fields})
    return Deliberation.plan("d-1", request, CouncilSpec(name="architect", members=seats))


def answers(plan: Any, failed: dict[tuple[str, str], str]) -> Iterable[Any]:
    """Every answer that a plan asks for, stage by stage; some failed with a reason."""
    from tasks.council.answer import Answer
    from tasks.council.proposal import Proposal
    from tasks.council.replies import read_reply
    from tasks.council.voting.ballots import Review

    text = read_reply("A queue.\nANSWER: 42", "stop").content
    for member, stage in plan.posts:
        voter = member.agent_id
        fields: dict[str, Any] = {"status": "ok", "error": None}
        if reason := failed.get((voter, stage)):
            fields = {"status": "failed", "error": reason}
        elif "review" in stage:
            ranking = OTHERS[voter]
            fields["ballot"] = Review(voter=voter, shown=ranking, ranking=ranking, order="forward", opinions={})
        else:
            author = {"author_id": voter, "author_role": member.role, "model": "m", "tokens": 3}
            fields["proposal"] = Proposal(content=text, finish_reason="stop", **author)
        fields |= {"task_id": plan.id, "item": "task", "stage": stage, "agent_id": voter, "role": member.role}
        yield Answer(duration_ms=1234, model="m", engine="vllm", num_agents=3, timestamp=NOW, **fields)


def body(plan: Any, failed: dict[tuple[str, str], str] | None = None) -> dict[str, Any]:
    """The JSON that `result` prints."""
    from tasks.council.models import Status
    from tasks.council.progress.completion import Verdict
    from tasks.council.progress.item import ItemProgress, NextStage
    from tasks.council.progress.result import item_result

    progress = ItemProgress(plan, plan.agenda[0])
    for answer in answers(plan, failed or {}):
        if answer.stage not in progress.answers:
            progress.enter(answer.stage, NextStage(tuple(member.agent_id for member in plan.called_for(answer.stage))))
        progress.take(answer)
    return STATUS | item_result(progress, Verdict(Status.COMPLETED), 5000, NOW).model_dump(mode="json")


def shown(result: dict[str, Any], width: int = 80) -> list[str]:
    """The lines on a terminal of that width."""
    from rich.console import Console

    from deployments.terminal import show_result

    file = io.StringIO()
    show_result(result, Console(file=file, width=width, highlight=False), ["where"])
    return file.getvalue().splitlines()


def table_of(lines: list[str]) -> list[list[str]]:
    """The cells of the members' table."""
    start = next(number for number, line in enumerate(lines) if line.startswith("rank"))
    return [line.split() for line in lines[start : start + 4]]


def test_a_result_fits_into_80_columns_with_its_later_stages() -> None:
    """One line for each member, by rank."""
    lines = shown(body(planned(strategy="synthesize", rounds=1)))
    assert max(map(len, lines)) <= 80
    assert table_of(lines)[0] == ["rank", "member", "status", "score", "votes", "review", "revise", "seconds", "tokens"]
    assert [row[0] for row in table_of(lines)[1:]] == ["1", "2", "3"]
    assert {row[1] for row in table_of(lines)[1:]} == set(MEMBERS)
    assert "synthesis by agent-architect-001 (" in lines[0]
    assert any("3 of 3" in line for line in lines)
    assert lines[-1] == "where"


def test_where_they_do_not_fit_the_later_stages_are_left_out() -> None:
    """Rather than folded; what failed in them is told below."""
    failed = {("agent-architect-002", "revise-1"): "HTTP 500: gone"}
    lines = shown(body(planned(strategy="synthesize", rounds=1), failed), width=64)
    assert max(map(len, lines)) <= 64
    assert table_of(lines)[0] == ["rank", "member", "status", "score", "votes", "seconds", "tokens"]
    assert "agent-architect-002: revise-1: HTTP 500: gone" in lines


def test_forty_columns_are_enough() -> None:
    """A member has a line and not a letter a line; figures that do not fit are left to wider ones."""
    lines = shown(body(planned(strategy="synthesize", rounds=1)), width=40)
    assert max(map(len, lines)) <= 40
    start = next(number for number, line in enumerate(lines) if line.startswith("member"))
    assert {line.split()[0] for line in lines[start + 1 : start + 4]} == set(MEMBERS)


@pytest.mark.parametrize(
    ("fields", "failed", "titled", "told"),
    [
        ({"strategy": "propose"}, {}, "(3 of 3)", "which the checks put first"),
        ({"strategy": "rank"}, {}, "(3 of 3)", "which the ballots put first."),
        (
            {"strategy": "propose", "answer_format": {"type": "number"}},
            {},
            "answer 42, 3 of 3 (3 of 3)",
            "3 of 3 proposals answer 42",
        ),
        (
            {"strategy": "synthesize"},
            {("agent-architect-001", "synthesize"): "HTTP 500"},
            "no synthesis: degraded",
            "failed (failed: HTTP 500), so the best proposal stands.",
        ),
    ],
    ids=["checks", "ballots", "answer", "no synthesis"],
)
def test_the_title_says_who_decided_and_the_words_say_how(
    fields: dict[str, Any], failed: dict[tuple[str, str], str], titled: str, told: str
) -> None:
    """For a reader who sees no report."""
    lines = shown(body(planned(**fields), failed), width=120)
    frame = [line for line in lines if line.startswith(("╭", "╰"))]
    assert titled in "".join(frame)
    assert told in " ".join(lines)


def test_a_deliberation_that_is_not_decided_yet_is_shown() -> None:
    """The body then has its status only."""
    status = {"id": "d", "status": "IN_PROGRESS", "degraded": False, "council": "dev", "engine": "vllm", "links": {}}
    assert shown(status) == ["Not decided yet: in progress", "where"]


def test_a_result_of_an_earlier_version_is_shown() -> None:
    """It lacks what came since; and one of a later version has more."""
    result = body(planned(strategy="rank"))
    for name in ("firmness", "answers_short"):
        del result[name]
    del result["ballots"]["worth"], result["ballots"]["set_aside"]
    result["ballots"]["since_2031"] = 1
    assert any("which the ballots put first." in line for line in shown(result))


def test_how_firm_a_decision_is_stands_below_it() -> None:
    """And what the ballots are worth."""
    told = " ".join(" ".join(shown(body(planned(strategy="rank")), width=120)).split())
    firm = ("Holds without any one voter or member, and under every tally rule.", "The decision turns to ")
    assert any(words in told for words in firm)
    assert "So few ballots could be drawn lots, whatever they say." in told


def test_a_council_is_listed_with_its_tally_rule_where_it_is_not_the_usual_one() -> None:
    """Beside its strategy."""
    from rich.console import Console

    from deployments.terminal import show_councils
    from tasks.council.council import CouncilSpec, Member

    file = io.StringIO()
    members = (Member(agent_id="a", role="DEV"),)
    councils = {
        "usual": CouncilSpec(name="usual", members=members),
        "other": CouncilSpec(name="other", members=members, rounds=1, tally="schulze"),
    }
    show_councils(councils, Console(file=file, width=120))
    rows = file.getvalue().splitlines()
    assert "rank  " in rows[1]
    assert "rank, 1 rounds, schulze" in rows[2]


def test_text_of_a_model_cannot_act_on_the_terminal() -> None:
    """Neither in a decision nor in a reason."""
    result = body(planned(strategy="rank"), {("agent-architect-003", "review-0"): "\x1b[2Jgone [red]x[/red]"})
    result["decision"] = "\x1b]0;title\x07 [bold]text[/bold]"
    said = "\n".join(shown(result))
    assert "\x1b" not in said
    assert "]0;title [bold]text[/bold]" in said
    assert "[2Jgone [red]x[/red]" in said


def test_each_stage_is_shown_as_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a table with a column for each stage on a terminal, which stays when it has ended."""
    from rich.console import Console

    from deployments.terminal import TerminalWatcher

    file = io.StringIO()
    watcher = TerminalWatcher()
    monkeypatch.setattr(watcher, "_console", Console(file=file, width=80, force_terminal=True, color_system=None))
    plan = planned(strategy="synthesize", rounds=1)
    watcher.began(plan)
    for answer in answers(plan, {("agent-architect-002", "review-0"): "HTTP 500: gone"}):
        watcher.answered(answer)
    watcher.ended()
    lines = file.getvalue().splitlines()
    last = [line for line in lines if line.strip().startswith("agent-architect")][-3:]
    assert any("propose-0" in line and "synthesize" in line for line in lines)
    assert [line.count("ok 1.2 s") for line in last] == [5, 3, 4]
    assert "failed 1.2 s" in last[1]
    assert max(map(len, last)) <= 80


HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\r\x08\u202e\x7f\ud800"
ACTING = set(HOSTILE) - {"]", "0", ";", "t", "i", "l", "e", "[", "2", "J", "3", "1", "m"}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_console_shows_nothing_that_acts(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is put on it, in whatever form, live too; its own colours stay."""
    from rich.console import Console
    from rich.live import Live
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from deployments.terminal import Plain, _plainly

    file = io.StringIO()
    console = _plainly(Console(file=file, width=80, force_terminal=terminal, color_system=None, highlight=False))
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE, style="bold")
    for shown in (HOSTILE, Text(HOSTILE), Panel(HOSTILE, title=HOSTILE), table):
        console.print(shown)
        console.print(shown, soft_wrap=True)
    with Live(get_renderable=lambda: Plain(table), console=console, transient=True):
        console.print(HOSTILE)
    text = file.getvalue()
    assert "]0;title[2J31m" in text
    ours = ACTING - {"\x1b", "\r"} if terminal else ACTING
    assert not ours & set(text)
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text


def test_words_of_others_in_a_line_or_an_error_do_not_act(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a model server that `up` asks, for example."""
    import typer

    from deployments.cli.support import fail, put, say

    say(f"models: {HOSTILE}")
    put(HOSTILE)
    with pytest.raises(typer.Exit):
        fail(HOSTILE, 1)
    told = capsys.readouterr()
    assert not ACTING & set(told.out + told.err)
    assert told.out == "]0;title[2J31m\n"


@settings(deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(st.characters()), lambda one: st.lists(one, max_size=3)))
def test_json_for_a_terminal_is_the_same_json(value: Any) -> None:
    """What acts is escaped, readable text is not."""
    text = plain_json(value)
    assert json.loads(text) == json.loads(json.dumps(value))
    assert all(char.isprintable() or char == "\n" for char in text)
    assert plain_json("\u00e9\u8bbe") == '"\u00e9\u8bbe"'

"""The report: what it says first, and that no text of a model or a user is more than text in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tasks.council.answer import Answer
from tasks.council.closed_answers import Choice
from tasks.council.council import CouncilSpec, Member
from tasks.council.decisions import ItemResult
from tasks.council.models import Deliberation, DeliberationRequest, Item, MemberStatus, Status
from tasks.council.outcome import Outcome
from tasks.council.progress.completion import Verdict
from tasks.council.progress.item import ItemProgress, NextStage
from tasks.council.progress.result import item_result
from tasks.council.proposal import Proposal, Usage
from tasks.council.report.appendix import Trail
from tasks.council.report.markup import MAX_SHOWN, cell, escape, fenced, folded
from tasks.council.report.report import MAX_REPORT, ranking, report
from tasks.council.voting.ballots import Opinion, Review, Score
from tests.conftest import cases

OURS = {"h1", "h2", "h3", "p", "strong", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}
OURS |= {"ul", "li", "details", "summary", "wbr", "img"}
PICTURE = "data:image/png;base64,AAAA"
"""Of a kind that the renderer used here lets through."""
HOSTILE = [
    "```\n# Decision\n<img src=x onerror=alert(1)>\n```",
    "````text\n</code></pre><script>alert(1)</script>\n````",
    "~~~\n<svg onload=alert(1)>\n~~~",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png) <http://evil.example>",
    "| a | b |\n| --- | --- |\n| 1 | 2 |",
    "a | b \\| c || <td>x</td>",
    "<details open><summary>x</summary></details> &lt;b&gt; &#60;b&#62;",
    "line\n\n# heading\n\n- list\n\n> quote\n\n---\n\n1. one",
    "**bold** __bold__ *it* _it_ ~~gone~~ `code` $x$ :smile: [ref]: http://evil.example",
    "<!-- comment --> <?php ?> <![CDATA[x]]>",
    "setext\n===",
    "one\n\n</pre></details>\n\n<h1>two</h1>\n\n```\n<img src=x onerror=alert(1)>\n```",
    "</summary></details><details open ontoggle=alert(1)>",
    "http://evil.example www.evil.example admin@evil.example",
]
ENDS = [
    "a\r\n\r\n<b>x</b>",
    "a\r\r<b>x</b>",
    "a\u2028\u2028<b>x</b>\u2029\x85\x0b\x0c\x1c<b>",
    "\u202etxet",
    "\x01\x1b[31m",
]
"""What ends a line somewhere, or acts on a screen."""


class Seen(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags += [] if tag == "wbr" else [tag]
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")


def seen(markdown: str) -> Seen:
    """The page that Markdown with tables and raw HTML becomes."""
    return Seen(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))


def answer(plan: Deliberation, item: str, stage: str, name: str, text: str, **fields: object) -> Answer:
    """An answer whose every free text is `text`: a proposal, or a ballot that ranks `ranking`."""
    ranking = fields.pop("ranking", None)
    status = fields.setdefault("status", MemberStatus.OK)
    whole = {"proposal": None, "ballot": None}
    if isinstance(ranking, tuple):
        score = Score(score=7, reason=text.strip()[:200] or "-")
        opinion = Opinion(scores={"clarity": score}, critique=text.strip()[:500] or "-")
        shown = {"voter": name, "shown": ranking, "ranking": ranking, "order": "forward"}
        whole["ballot"] = Review.model_validate({**shown, "opinions": dict.fromkeys(ranking, opinion)})
    elif status is not MemberStatus.FAILED:
        proposal = {"author_role": "DEV", "content": text, "model": text, "tokens": 1, "finish_reason": "stop"}
        earlier = (text,) if "revise" in stage else ()
        whole["proposal"] = Proposal.model_validate({"author_id": name, **proposal, "revisions": earlier})
    return Answer.model_validate(
        {
            "task_id": plan.id,
            "item": item,
            "stage": stage,
            "agent_id": name,
            "role": "DEV",
            "num_agents": 3,
            "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
            "engine": "simulator",
            "model": text,
            "error": None if status is MemberStatus.OK else text,
            "duration_ms": 1500,
            "usage": Usage(prompt_tokens=200, completion_tokens=50, cached_tokens=150),
            **whole,
            **fields,
        }
    )


def planned(text: str, items: int = 1, members: int = 3, **fields: object) -> Deliberation:
    """A council that is told `text`."""
    told = {"items": [{"task": text.strip() or "-"}] * items, "requirements": [text.strip() or "-"], **fields}
    seats = tuple(Member(agent_id=f"m{number}", role="DEV") for number in range(1, members + 1))
    return Deliberation.plan("d-1", DeliberationRequest.read(told), CouncilSpec(name="dev", members=seats))


def taken(plan: Deliberation, item: Item, answers: Iterable[Answer]) -> ItemResult:
    """What an item comes to by these answers, each stage called for those who answered."""
    progress = ItemProgress(plan, item)
    for one in answers:
        if one.stage not in progress.answers:
            progress.enter(one.stage, NextStage(()))
        progress.called[one.stage] += (one.agent_id,)
        progress.take(one)
    return item_result(progress, Verdict(Status.COMPLETED), 1234, datetime(2026, 1, 1, tzinfo=UTC))


def deliberation(text: str, items: int = 1) -> tuple[Deliberation, list[ItemResult]]:
    """Three that answered `text`: one whole, one cut off, one failed for that reason."""
    plan = planned(text, items, strategy="propose")
    statuses = {"m1": MemberStatus.OK, "m2": MemberStatus.TRUNCATED, "m3": MemberStatus.FAILED}
    return plan, [
        taken(
            plan,
            item,
            [answer(plan, item.id, "propose-0", name, text, status=status) for name, status in statuses.items()],
        )
        for item in plan.agenda
    ]


def synthesis(text: str, members: int = 3) -> tuple[Deliberation, list[ItemResult], dict[str, Trail]]:
    """The longest strategy, every text of it the same: a revision, a failed ballot, a synthesis that was cut off."""
    plan = planned(text, members=members, strategy="synthesize", rounds=1)
    names = [member.agent_id for member in plan.council.members]
    others = {name: tuple(one for one in names if one != name) for name in names}

    def given(stage: str, name: str, **fields: object) -> Answer:
        return answer(plan, plan.agenda[0].id, stage, name, text, **fields)

    reviews = {stage: [given(stage, one, ranking=others[one]) for one in names] for stage in ("review-0", "review-1")}
    reviews["review-1"][-1] = given("review-1", names[-1], status=MemberStatus.FAILED)
    answers = [
        *(given("propose-0", one) for one in names),
        *reviews["review-0"],
        *(given("revise-1", one) for one in names),
        *reviews["review-1"],
        given("synthesize", "m1", status=MemberStatus.TRUNCATED),
    ]
    ballots = {stage: tuple(one.ballot for one in given if one.ballot) for stage, given in reviews.items()}
    return plan, [taken(plan, plan.agenda[0], answers)], {plan.agenda[0].id: Trail(ballots, PICTURE, unread=text)}


def told(plan: Deliberation, results: list[ItemResult], trails: dict[str, Trail] | None = None) -> str:
    """The report on results."""
    outcome = Outcome()
    for result in results:
        outcome.add(result)
    return report(plan, outcome.results, outcome.lines, outcome.usage, trails)


def rendered(text: str, items: int = 1) -> str:
    """The report on a council of which one answered."""
    return told(*deliberation(text, items))


def outside_of_code(markdown: str) -> str:
    """The report without its fenced blocks."""
    return re.sub(r"^(`{3,})text\n.*?\n\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("make", [deliberation, synthesis])
@pytest.mark.parametrize("text", [*HOSTILE, *ENDS])
def test_text_of_models_and_users_is_inert(text: str, make: Callable[[str], tuple[Any, ...]]) -> None:
    """Whatever they write, the page has the elements of a harmless report, and no others."""
    hostile, harmless = seen(told(*make(text))), seen(told(*make("a plain sentence")))
    assert hostile.tags == harmless.tags
    assert set(hostile.tags) <= OURS
    assert hostile.attributes <= {"class", "style", "src", "alt"}
    assert [tag for tag in hostile.tags if tag == "img"] == ["img"] * (make is synthesis)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_can_still_be_read_as_it_was_written(text: str) -> None:
    """Inert does not mean lost: proposals stand word for word, a reason stands in its line."""
    page = seen(told(*synthesis(text))).text
    assert page.count(text) >= 4
    assert page.count(" ".join(text.split())) >= 3


@settings(max_examples=cases(100), deadline=None)
@given(text=st.text(alphabet="`~<>&|[]()!#*_\\-=+$:\"'/.\n\r\u2028\t ab1", max_size=60))
def test_no_text_at_all_leaves_its_place(text: str) -> None:
    """Any mixture of characters that Markdown or HTML acts on leaves the page as it would be without them."""
    assert set(seen(told(*synthesis(text))).tags) <= OURS
    assert len(seen(f"{fenced(text)}\n\nafter").tags) == len(["pre", "code", "p"])
    assert seen(f"{folded(text, text)}\n\nafter").tags == ["details", "summary", "pre", "p"]
    assert "\n" not in folded(text, text, folded(text, text))
    assert set(seen(f"| a | b |\n| --- | --- |\n| {escape(text)} | after |").tags) <= OURS - {"strong", "code", "pre"}


@pytest.mark.parametrize("text", ["www.evil.example", "see http://evil.example now", "write to admin@evil.example"])
def test_a_bare_address_does_not_become_a_link(text: str) -> None:
    """GitHub's Markdown makes links of bare addresses, in the second UI of escaped ones too."""
    shown = seen(outside_of_code(told(*synthesis(text))))
    assert " ".join(text.split()) in shown.text
    for line in re.sub(r"<(details).*?</\1>", "", outside_of_code(told(*synthesis(text)))).splitlines():
        assert re.findall(r"www\\?\.|\w\\?@\w|:\\?//", line.partition("](data:")[0]) == []
    assert re.findall(r"www\.|@\w|://", cell(text, 300)) == []


def test_the_decision_comes_first_and_every_heading_says_who_answered() -> None:
    """Verdict, members and proposals, in that order, and `degraded` wherever there is a count."""
    shown = rendered("a plain sentence")
    assert re.findall(r"^#+ .*$", shown, re.MULTILINE) == [
        "# Deliberation of council dev",
        "## Decision (1 of 3: degraded)",
        "### Cost",
        "### Members (1 of 3: degraded)",
        "### Proposals",
    ]
    assert "**Simulated" in shown
    assert "Degraded: not all" in shown


def test_the_whole_way_of_a_decision_is_told() -> None:
    """The vote as a picture with its words, the cost by stage, and every text one click away."""
    shown = told(*synthesis("a plain sentence"))
    assert re.findall(r"^### .*$", shown, re.MULTILINE) == [
        "### The vote",
        "### Cost",
        "### Members (3 of 3, 2 of 3 ballots, no synthesis: degraded)",
        "### Proposals",
        "### Ballots of review-0",
        "### Ballots of review-1",
    ]
    assert f"]({PICTURE})" in shown
    assert "failed \\(truncated\\: a plain sentence\\), so the best proposal stands" in shown
    assert [shown.count(what) for what in ("version 1 of 2", "checks, and the model", "7/10")] == [3, 3, 10]
    assert "The ballots could not be read for this report" in shown


def test_the_cost_of_each_stage_stands_in_a_table() -> None:
    """Who was asked, what could be used, seconds, tokens, the cached share, and the whole."""
    shown = told(*synthesis("a plain sentence"))
    assert "| propose-0 | 3 | 3 | 1.50 | 600 | 75 % | 150 |" in shown
    assert "| review-1 | 3 | 2 | 1.50 | 600 | 75 % | 150 |" in shown
    assert "| synthesize | 1 | 0 | 1.50 | 200 | 75 % | 50 |" in shown
    assert "| **all** | **13** | **11** | **1.23** | **2600** | **75 %** | **650** |" in shown


def test_members_are_shown_with_their_later_stages_and_reasons_below() -> None:
    """One column for each kind of stage; one line for each reason."""
    shown = told(*synthesis("a plain sentence"))
    assert "| member | role | propose | review | revise | synthesize | seconds | tokens |" in shown
    assert "| m3 | DEV | ok | failed | ok | - | 6.00 | 200 |" in shown
    assert "- m3\\: review\\-1\\: a plain sentence" in shown


def test_without_a_picture_a_table_shows_the_ballots() -> None:
    """Voters in rows, proposals in columns, best first."""
    plan, results, trails = synthesis("a plain sentence")
    shown = told(plan, results, {one: Trail(trail.ballots) for one, trail in trails.items()})
    tally = results[0].ballots
    assert tally is not None
    assert f"|  | {' | '.join(tally.tally.order)} |" in shown
    assert "![" not in shown


def test_a_closed_answer_stands_with_its_votes() -> None:
    """The answer first, then who gave which."""
    plan = planned("Yes or no?", strategy="propose", answer_format=Choice(options=("Yes", "No")).model_dump())
    given = {"m1": "ANSWER: no", "m2": "ANSWER: yes", "m3": "ANSWER: no"}
    shown = told(
        plan,
        [taken(plan, plan.agenda[0], [answer(plan, plan.agenda[0].id, "propose-0", *one) for one in given.items()])],
    )
    assert "**Answer: No**" in shown
    assert "Answers of the proposals\\: No by m" in shown


def test_answers_that_cannot_be_read_are_told_first() -> None:
    """Nobody is missing then, and the result is degraded all the same."""
    plan = planned("Yes or no?", strategy="propose", answer_format=Choice(options=("Yes", "No")).model_dump())
    given = {"m1": "ANSWER: no", "m2": "Hm.", "m3": "Well."}
    shown = told(
        plan,
        [taken(plan, plan.agenda[0], [answer(plan, plan.agenda[0].id, "propose-0", *one) for one in given.items()])],
    )
    assert "## Decision (3 of 3, 1 of 3 answers readable: degraded)" in shown
    assert "Degraded: fewer than half of the closed answers can be read." in shown
    assert "Degraded: not all" not in shown
    assert "Holds without any one voter or member\\." not in shown
    assert "hangs on" not in shown, "of one answer that can be read there is nothing to tell"


def test_how_firm_a_decision_by_ballots_is_stands_with_it() -> None:
    """In the sentence that says how it was decided."""
    plan = planned("a plain sentence", members=5)
    names = [member.agent_id for member in plan.council.members]
    others = {name: tuple(one for one in names if one != name) for name in names}
    texts = [answer(plan, "task", "propose-0", name, "a plain sentence") for name in names]
    item = plan.agenda[0]
    texts = [one.model_copy(update={"item": item.id}) for one in texts]
    votes = [answer(plan, item.id, "review-0", name, "fine", ranking=others[name]) for name in names]
    shown = told(plan, [taken(plan, item, [*texts, *votes])])
    decided = next(line for line in shown.splitlines() if line.startswith("**Decided:**"))
    assert decided.endswith("Holds without any one voter or member, and under every tally rule\\.")


def test_a_long_agenda_is_cut_to_a_bounded_report() -> None:
    """All items are in the table, the first twenty in full, and the report says so."""
    shown = rendered("a plain sentence", items=30)
    assert shown.count("\n| item-") == 30
    assert shown.count("## Decision of item-") == 20
    assert "Of 30 items the first 20 are shown in full; all are on the record." in shown


def test_a_large_council_is_cut_to_a_bounded_report() -> None:
    """What is left out is counted."""
    shown = told(*synthesis("a plain sentence", members=30))
    assert "10 of 30 proposals are left out for length; they are on the record." in shown
    assert "6 of 30 ballots are left out for length; they are on the record." in shown
    assert "<summary>m24: " in shown
    assert "<summary>m25: " not in shown


def test_a_report_is_bounded_however_much_its_texts_grow_by_escaping() -> None:
    """The folded texts share a number of characters; what does not fit is counted."""
    shown = told(*synthesis('"<&' * 3000, members=30))
    assert len(shown) < 1.2 * MAX_REPORT
    assert re.search(r"2\d of 30 proposals are left out for length; they are on the record\.", shown)


def test_a_long_proposal_is_cut_where_it_is_shown() -> None:
    """The report says that there is more."""
    shown = fenced("word " * MAX_SHOWN)
    assert "[...]" in shown
    assert len(shown) < 1.1 * MAX_SHOWN


def test_the_ranking_has_a_row_for_each_member() -> None:
    """Those without a proposal too, with their reason; votes where there are any."""
    _, results = deliberation("a <b> | http://c")
    assert [(row["member"], row["rank"], row["status"], row["votes"]) for row in ranking(results)] == [
        ("m1", 1, "ok", None),
        ("m2", 2, "truncated", None),
        ("m3", None, "failed", None),
    ]
    assert ranking(results)[2]["reason"] == "a \u2039b\u203a | http:\u2060//c"
    _, voted, _ = synthesis("a plain sentence")
    assert sorted(row["votes"] for row in ranking(voted)) == [0.0, 1.0, 1.0]


def test_a_long_line_is_wrapped_only_where_it_has_blanks() -> None:
    """A word with a hyphen stays one, so that what is copied is what was written."""
    text = " ".join(["append-only"] * 30)
    assert " ".join(fenced(text).split()[1:-1]) == text

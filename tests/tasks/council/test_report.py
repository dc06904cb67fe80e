"""The report: what it says first, and that no text of a model or a user is more than text in it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tasks.council.decisions import ItemResult
from tasks.council.models import CouncilSpec, Deliberation, DeliberationRequest, Member, MemberStatus, Status
from tasks.council.proposals import Answer, Proposal
from tasks.council.report import MAX_SHOWN, escape, fenced, report, table
from tasks.council.results import item_result
from tasks.council.rules import Verdict
from tasks.outcome import Outcome

OURS = {"h1", "h2", "h3", "p", "strong", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}
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
]


class Seen(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")


def seen(markdown: str) -> Seen:
    """The page that Markdown with tables and raw HTML becomes."""
    return Seen(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))


def deliberation(text: str, items: int = 1) -> tuple[Deliberation, list[ItemResult]]:
    """A council of three that was told `text` and answered it: one whole, one cut off, one failed for that reason."""
    members = tuple(Member(agent_id=f"m{number}", role="DEV") for number in (1, 2, 3))
    fields = {"items": [{"task": text.strip() or "-"}] * items, "requirements": [text.strip() or "-"]}
    plan = Deliberation.plan("d-1", DeliberationRequest.read(fields), CouncilSpec(name="dev", members=members))
    results = []
    for item in plan.agenda:
        common = {"task_id": plan.id, "item": item.id, "stage": "propose-0", "role": "DEV", "num_agents": 3}
        ended = {"timestamp": datetime.now(UTC), "engine": "simulator", "model": text}
        proposal = {"author_role": "DEV", "content": text, "model": text, "tokens": 1, "finish_reason": "stop"}
        answers = {
            name: Answer.model_validate(
                {
                    **common,
                    **ended,
                    "agent_id": name,
                    "status": status,
                    "error": text if status is not MemberStatus.OK else None,
                    "proposal": None if name == "m3" else Proposal.model_validate({"author_id": name, **proposal}),
                }
            )
            for name, status in zip(
                ("m1", "m2", "m3"), (MemberStatus.OK, MemberStatus.TRUNCATED, MemberStatus.FAILED), strict=True
            )
        }
        verdict = Verdict(Status.COMPLETED, degraded=True)
        results.append(item_result(plan, item, answers, verdict, 1234, datetime.now(UTC)))
    return plan, results


def rendered(text: str, items: int = 1) -> str:
    """The report on such a deliberation."""
    plan, results = deliberation(text, items)
    outcome = Outcome()
    for result in results:
        outcome.add(result)
    return report(plan, outcome.results, outcome.lines, outcome.usage)


def outside_of_code(markdown: str) -> str:
    """The report without its fenced blocks."""
    return re.sub(r"^(`{3,})text\n.*?\n\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_models_and_users_is_inert(text: str) -> None:
    """Whatever they write, the page has the elements of a harmless report, and no others."""
    hostile, harmless = seen(rendered(text)), seen(rendered("a plain sentence"))
    assert hostile.tags == harmless.tags
    assert set(hostile.tags) == OURS
    assert hostile.attributes <= {"class", "style"}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_can_still_be_read_as_it_was_written(text: str) -> None:
    """Inert does not mean lost: proposals stand word for word, a reason stands in its cell."""
    page = seen(rendered(text)).text
    assert page.count(text) >= 2
    assert page.count(" ".join(text.split())) >= 5


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="`~<>&|[]()!#*_\\-=+$:\"'/.\n\t ab1", max_size=60))
def test_no_text_at_all_leaves_its_place(text: str) -> None:
    """Any mixture of characters that Markdown or HTML acts on leaves the page as it would be without them."""
    assert set(seen(rendered(text)).tags) <= OURS
    assert len(seen(f"{fenced(text)}\n\nafter").tags) == len(["pre", "code", "p"])
    assert set(seen(f"| a | b |\n| --- | --- |\n| {escape(text)} | after |").tags) <= OURS - {"strong", "code", "pre"}


@pytest.mark.parametrize("text", ["www.evil.example", "see www.evil.example now", "write to admin@evil.example"])
def test_a_bare_address_does_not_become_a_link(text: str) -> None:
    """GitHub's Markdown, which the UI reads, makes links of bare addresses; outside of code there are none."""
    shown = outside_of_code(rendered(text))
    assert "evil" in shown
    assert re.findall(r"www\.|\w@\w", shown) == []


def test_the_decision_comes_first_and_every_heading_says_who_answered() -> None:
    """Verdict, members and proposals, in that order, and `degraded` wherever there is a count."""
    shown = rendered("a plain sentence")
    headings = re.findall(r"^#+ .*$", shown, re.MULTILINE)
    assert [heading.partition(": score")[0] for heading in headings] == [
        "# Deliberation of council dev",
        "## Decision (1 of 3: degraded)",
        "### Members (1 of 3: degraded)",
        "### 1. m1 (DEV)",
        "### 2. m2 (DEV)",
    ]
    assert "**Simulated" in shown


def test_a_long_agenda_is_cut_to_a_bounded_report() -> None:
    """All items are in the table, the first twenty in full, and the report says so."""
    shown = rendered("a plain sentence", items=30)
    assert shown.count("\n| item-") == 30
    assert shown.count("## Decision of item-") == 20
    assert "Of 30 items the first 20 are shown in full; all are on the record." in shown


def test_a_long_proposal_is_cut_where_it_is_shown() -> None:
    """The report says that there is more."""
    shown = fenced("word " * MAX_SHOWN)
    assert "[...]" in shown
    assert len(shown) < 1.1 * MAX_SHOWN


def test_the_ranking_has_a_row_for_each_member() -> None:
    """Those without a proposal too, with their reason."""
    _, results = deliberation("a | b")
    assert [(row["member"], row["rank"], row["status"]) for row in table(results)] == [
        ("m1", 1, "ok"),
        ("m2", 2, "truncated"),
        ("m3", None, "failed"),
    ]
    assert table(results)[2]["reason"] == "a \\| b"


def test_a_long_line_is_wrapped_only_where_it_has_blanks() -> None:
    """A word with a hyphen stays one, so that what is copied is what was written."""
    text = " ".join(["append-only"] * 30)
    assert " ".join(fenced(text).split()[1:-1]) == text

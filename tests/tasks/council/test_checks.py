"""Deterministic checks of proposals, and the ranking that they give."""

from __future__ import annotations

import time
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.closed_answers import Choice
from tasks.council.models import Item
from tasks.council.proposal import Check, Proposal
from tasks.council.voting.checks import MAX_CODE, Checks, alike, rank_proposals, total

ITEM = Item(
    id="i",
    task="Implement a rate limiter for an API",
    rubric="Implementation must be thread-safe",
    requirements=("Use token bucket algorithm", "Include docstrings", "Handle edge cases"),
)
GOOD = (
    "We implement the API rate limiter as a token bucket. The implementation is thread safe, the algorithm "
    "handles each edge case, and every function has a docstring. "
    + "More words that explain how it is put to work. "
    * 8
)


def proposal(content: str, author: str = "a", finish_reason: str = "stop") -> Proposal:
    """A proposal with a text."""
    return Proposal(
        author_id=author, author_role="DEV", content=content, model="m", tokens=1, finish_reason=finish_reason
    )


def check(name: str, content: str, item: Item = ITEM, finish_reason: str = "stop") -> Check:
    """One check of a text."""
    return next(one for one in Checks(item).of(proposal(content, finish_reason=finish_reason)) if one.name == name)


def names(content: str, item: Item = ITEM) -> list[str]:
    """The checks that are listed for a text."""
    return [one.name for one in Checks(item).of(proposal(content))]


def test_a_good_proposal_passes_everything() -> None:
    """In other forms of the same words."""
    checks = Checks(ITEM).of(proposal(GOOD))
    assert [one.name for one in checks if not one.passed] == []
    assert total(checks) == 1.0


def test_checks_with_nothing_to_look_at_are_not_listed() -> None:
    """A score must not rise by what was never asked for."""
    assert names("x", Item(id="i", task="x")) == ["task_words", "length", "no_thinking", "complete"]
    assert names("```py\n```\n```yml\n```") == [
        *("requirements", "rubric", "task_words", "code", "yaml"),
        *("length", "no_thinking", "complete"),
    ]


def test_requirements_are_counted_by_their_words_and_the_weakest_is_named() -> None:
    """Evidence says what is missing."""
    result = check("requirements", "A token bucket with docstrings")
    assert result.evidence == "2 of 3 requirements covered; 'Handle edge cases' lacks handle, edge, cases"
    assert result.score == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert not result.passed


def test_words_of_other_scripts_are_found_one_by_one() -> None:
    """Where no blanks separate words, every character counts."""
    item = Item(id="i", task="设计缓存")
    assert check("task_words", "我们设计一个缓存策略", item).score == 1.0
    assert check("task_words", "We design", item).evidence == "0% of its words found; not 设, 计, 缓, 存"


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("queries", "query"),
        ("caching", "a cache"),
        ("retry", "retried retries"),
        ("running classes", "run the class"),
        ("TESTED", "testing"),
        ("the", "the"),
    ],
)
def test_forms_of_a_word_agree(wanted: str, text: str) -> None:
    """Plural, -ing, -ed and case do not matter; a stop word counts where there is nothing else."""
    assert check("rubric", text, Item(id="i", task="x", rubric=wanted)).score == 1.0


@pytest.mark.parametrize(
    ("block", "evidence"),
    [
        ("```python\ndef f() -> int:\n    return '\\d'\n```", "1 of 1 blocks parse"),
        ("```py\nx = 1\nx = (\n```", "0 of 1 blocks parse; py, line 4: '(' was never closed"),
        ('```json\n{\n"a": }\n```', "0 of 1 blocks parse; json, line 4: Expecting value"),
        ("1. do\n   ```python\n   x = 1\n   ```", "1 of 1 blocks parse"),
        ("```py\n\x00\n```", "0 of 1 blocks parse; py, line 3: source code string cannot contain null bytes"),
    ],
)
def test_code_is_parsed_and_the_first_error_has_its_line(block: str, evidence: str) -> None:
    """The line is the one in the proposal, which starts with a heading here."""
    assert check("code", f"# Code\n{block}").evidence == evidence


def test_the_score_of_code_is_the_share_that_parses() -> None:
    """Other languages do not count."""
    result = check("code", "```py\nx\n```\n```json\n{\n```\n```rust\nfn (\n```")
    assert (result.score, result.passed) == (0.5, False)


@pytest.mark.parametrize(
    ("block", "evidence"),
    [
        ("a: 1\n---\nb: [1, 2]", "1 of 1 blocks parse"),
        ("a: !Ref name\nb: !GetAtt [x, y]", "1 of 1 blocks parse"),
        ("a: &x 1\nb: *x", "1 of 1 blocks parse"),
        ("a: &x 1\n---\nb: *x", "0 of 1 blocks parse; yaml, line 2: undefined alias 'x'"),
        ("a: [1", "0 of 1 blocks parse; yaml, line 3: did not find expected ',' or ']'"),
        ("[" * 5000, "0 of 1 blocks parse; yaml, line 2: nested more than 100 deep"),
    ],
)
def test_yaml_is_read_without_building_it(block: str, evidence: str) -> None:
    """Custom tags are the business of their tools; an undefined alias is an error."""
    assert check("yaml", f"```yaml\n{block}\n```").evidence == evidence


def test_an_alias_bomb_is_just_syntax() -> None:
    """Nothing is expanded."""
    lines = ["a0: &a0 x"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert check("yaml", "```yaml\n" + "\n".join(lines) + "\n```").passed


@pytest.mark.parametrize("piece", ["(", "-", "not ", "lambda:", "[", "a.b", "f(", "{", "1+", "if x:\n "])
@pytest.mark.parametrize("language", ["python", "json", "yaml"])
def test_hostile_nesting_does_not_parse_and_does_not_fail(piece: str, language: str) -> None:
    """Recursion and memory errors of a parser are a finding, not a crash."""
    code = piece * ((MAX_CODE - 200) // len(piece))
    assert 0 <= total(Checks(ITEM).of(proposal(f"```{language}\n{code}\n```"))) <= 1


@pytest.mark.parametrize("piece", ["word ", "`<think>", "```py\nx\n```\n", "```yaml\n- ? x\n```\n", "x=1;", "\n"])
def test_a_megabyte_is_scored_soon(piece: str) -> None:
    """The work is bounded, whatever is in it."""
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    Checks(ITEM).of(proposal(text))
    assert time.process_time() - start < 3


def test_code_beyond_the_bound_counts_as_not_parsing() -> None:
    """A check that did not look does not say that it is fine."""
    result = check("code", "```py\n" + "x\n" * MAX_CODE + "```\n```py\nx\n```")
    assert result.evidence == "1 of 2 blocks parse; py, line 2: too much to check"


@pytest.mark.parametrize(("words", "score"), [(0, 0.0), (40, 0.5), (80, 1.0), (20_000, 1.0), (40_000, 0.5)])
def test_length_is_graded(words: int, score: float) -> None:
    """Too short and too long both lose."""
    assert check("length", "word " * words).score == score


def test_thinking_that_leaked_is_found_outside_code_only() -> None:
    """Text about tags is fine."""
    assert check("no_thinking", "a <think> b").evidence == "1 thinking tags outside code, the first is <think>"
    assert check("no_thinking", "a `<think>` b").passed


@pytest.mark.parametrize(
    ("content", "finish_reason", "score", "evidence"),
    [
        ("x", "stop", 1.0, "finish_reason is 'stop'; every code fence is closed"),
        ("```py\nx", "stop", 0.5, "finish_reason is 'stop'; a code fence stays open"),
        ("x", "length", 0.0, "finish_reason is 'length'; every code fence is closed"),
    ],
)
def test_a_whole_text_ends_by_itself_with_its_fences_closed(
    content: str, finish_reason: str, score: float, evidence: str
) -> None:
    """Half a proposal is none."""
    result = check("complete", content, finish_reason=finish_reason)
    assert (result.score, result.evidence) == (score, evidence)


def test_the_total_is_the_weighted_mean() -> None:
    """Rounded to four digits; without checks it is zero."""
    checks = [
        Check(name="a", passed=True, score=1, weight=2, evidence=""),
        Check(name="b", passed=False, score=0, weight=1, evidence=""),
    ]
    assert total(checks) == 0.6667
    assert total([]) == 0.0


def test_proposals_are_ranked_by_wholeness_and_then_by_score() -> None:
    """A cut one comes last, however good."""
    ranked = rank_proposals(
        [proposal(GOOD, "cut", "length"), proposal("word", "weak"), proposal(GOOD, "good")], Checks(ITEM), "salt"
    )
    assert [(one.rank, one.proposal.author_id) for one in ranked] == [(1, "good"), (2, "weak"), (3, "cut")]


def test_equal_proposals_are_drawn_without_favour() -> None:
    """Over many items everybody wins about as often."""
    equal = [proposal(GOOD, author) for author in ("a", "b", "c")]
    short = Item(id="i", task="x")
    winners = Counter(rank_proposals(equal, Checks(short), f"salt-{n}")[0].proposal.author_id for n in range(300))
    assert min(winners[author] for author in "abc") > 60


TEXTS = st.sampled_from([GOOD, "word", "", "```py\nx\n```", "```py\n(\n```", "<think>", "token bucket"]) | st.text()


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.sampled_from(["stop", "length", "none"])), max_size=6), st.randoms())
def test_the_ranking_does_not_depend_on_the_order_of_the_proposals(
    texts: list[tuple[str, str]], random: object
) -> None:
    """Ranks are 1 to n, and scores are 0 to 1."""
    proposals = [proposal(text, f"agent-{n}", finish) for n, (text, finish) in enumerate(texts)]
    shuffled = sorted(proposals, key=lambda _: random.random())  # type: ignore[attr-defined]
    ranked = rank_proposals(proposals, Checks(ITEM), "salt")
    assert rank_proposals(shuffled, Checks(ITEM), "salt") == ranked
    assert [one.rank for one in ranked] == list(range(1, len(proposals) + 1))
    assert all(0 <= one.score <= 1 and all(0 <= found.score <= 1 for found in one.checks) for one in ranked)


def test_which_closed_answer_is_given_changes_no_score() -> None:
    """Though the task names the options, and the word of one is longer than the other's."""
    item = Item(id="i", task="Which one: B or certainly?", answer_format=Choice(options=("B", "certainly", "A")))
    texts = [f"Some plan that weighs both.\n\n**ANSWER:** {answer}" for answer in ("A", "B", "certainly")]
    proposals = [
        Proposal(author_id="a", author_role="DEV", content=text, model="m", tokens=1, finish_reason="stop")
        for text in texts
    ]
    assert len({total(Checks(item).of(proposal)) for proposal in proposals}) == 1


def test_a_word_that_turns_a_sentence_counts_also_where_the_task_has_it() -> None:
    """Whoever asks "or not?" is answered with or without it."""
    yes, no = "Use Redis here, since it is fast.", "Do not use Redis here, since it is fast."
    assert not alike([yes, no], "Do we use Redis or not?")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Use a bounded queue with one worker.", "Use a bounded queue, with one worker!", True),
        ("Use a bounded queue.", "Shard the database by customer.", False),
        ("You should use Redis, since it is fast.", "You should not use Redis, since it is fast.", False),
        ("The answer is yes. " * 3, "The answer is no. " * 3, False),
        ("return x + 1", "return x - 1", False),
        ("!!!", "???", False),
        ("", "", False),
        (
            f"{'Choose a store for the sessions of a shop. '}Redis.",
            "Choose a store for the sessions of a shop. MySQL.",
            False,
        ),
    ],
)
def test_two_texts_are_alike_where_most_words_are_in_both(one: str, other: str, same: bool) -> None:
    """The task's own words tell nothing, and one "not" turns everything round."""
    assert alike([one, other], "Choose a store for the sessions of a shop.") is same
    assert alike([other, one], "Choose a store for the sessions of a shop.") is same


def test_texts_are_alike_where_each_two_are() -> None:
    """Also where the first is like both others; so it does not matter who answered first."""
    words = [f"word{number}" for number in range(24)]
    middle, left, right = words[2:22], words[:20], words[4:]
    texts = [" ".join(one) for one in (middle, left, right)]
    assert alike(texts[:2], "") and alike([texts[0], texts[2]], "")
    assert not any(alike(some, "") for some in permutations(texts))

"""Reading what a model server returned."""

from __future__ import annotations

import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.closed_answers import Choice, Number, answer_of
from tasks.council.fences import fenced_blocks, outside_fences
from tasks.council.models import MemberStatus
from tasks.council.replies import read_reply, split_thinking, visible_tags

PIECES = [
    *(
        "<think>",
        "</think>",
        "<THINKING>",
        "</thinking>",
        "<th",
        "ink>",
        "`",
        "``",
        "```\n",
        "\n```python\n",
        "~~~\n",
    ),
    *("\n", " ", "> ", "a", "word", "\x00", "\ud800"),
]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("Just an answer", "Just an answer", ""),
        ("<think>t</think>\n\nAnswer", "Answer", "t"),
        ("<THINK>t</Think>Answer", "Answer", "t"),
        ("<thinking>t</thinking>Answer", "Answer", "t"),
        ("<think>one</think>A\n<think>two</think>\nB", "A\n\n\nB", "one\n\ntwo"),
        ("<think>a<think>b</think>c</think>Answer", "Answer", "a\n\nb\n\nc"),
        ("thought\n</think>\nAnswer", "Answer", "thought"),
        ("</think>Answer", "Answer", ""),
        ("a</think>b</think>Answer", "Answer", "a\n\nb"),
        ("Answer\n<think>and then", "Answer", "and then"),
        ("<think></think>", "", ""),
        ("<think>mentions `</think>` first</think>Answer", "Answer", "mentions `</think>` first"),
        ("<think>an ```open fence\n```py\nx</think>\nAnswer", "Answer", "an ```open fence\n```py\nx"),
    ],
)
def test_thinking_is_told_from_the_answer(text: str, answer: str, thinking: str) -> None:
    """Any case, several, nested, without an opening or a closing tag."""
    assert split_thinking(text) == (answer, thinking)


@pytest.mark.parametrize(
    "text",
    [
        "Use `<think>` tags",
        "Use ``a ` <think>`` tags",
        "See:\n```xml\n<think>\nx\n</think>\n```\ndone",
        "- item\n    ```\n    </think>\n    ```\ndone",
        "~~~\n</think>\n~~~",
        "````md\n```\n<think>\n```\n````",
    ],
)
def test_tags_in_code_belong_to_the_answer(text: str) -> None:
    """A proposal may speak about thinking tags."""
    assert split_thinking(text) == (text, "")


def test_a_fence_that_is_never_closed_protects_nothing() -> None:
    """Rather a shortened answer than one that leaks its thinking."""
    assert split_thinking("thinking ```py\n```py\nx\n</think>\nAnswer")[0] == "Answer"


def test_a_tag_put_together_by_cutting_is_cut_too() -> None:
    """Nobody can hide one in another."""
    answer, _ = split_thinking("<th<think>x</think>ink>" * 10)
    assert visible_tags(answer) == []


def test_a_whole_answer_is_ok_and_keeps_both_kinds_of_thinking() -> None:
    """The server's own field comes first."""
    reply = read_reply("<think>inline</think>Answer", "stop", "own field")
    assert (reply.status, reply.content, reply.reasoning, reply.reason) == (
        MemberStatus.OK,
        "Answer",
        "own field\n\ninline",
        None,
    )


@pytest.mark.parametrize(
    ("content", "finish_reason", "status", "kept"),
    [
        ("Answer", "length", MemberStatus.TRUNCATED, "Answer"),
        ("<think>long", "length", MemberStatus.TRUNCATED, ""),
        (None, "length", MemberStatus.TRUNCATED, ""),
        ("", "stop", MemberStatus.EMPTY, ""),
        (" \n", "stop", MemberStatus.EMPTY, ""),
        ("<think>only</think>", "stop", MemberStatus.EMPTY, ""),
        (None, "stop", MemberStatus.EMPTY, ""),
        ("Answer", None, MemberStatus.INVALID, "Answer"),
        *(
            ("Answer", finish, MemberStatus.INVALID, "Answer")
            for finish in ("abort", "error", "repetition", "tool_calls", "content_filter", "STOP", "")
        ),
    ],
)
def test_anything_but_a_whole_answer_has_a_status_and_a_reason(
    content: str | None, finish_reason: str | None, status: MemberStatus, kept: str
) -> None:
    """What came is kept in any case."""
    reply = read_reply(content, finish_reason)
    assert (reply.status, reply.content) == (status, kept)
    assert reply.reason


HARMONY = (
    "<|channel|>analysis<|message|>The user wants a number.<|end|><|start|>assistant<|channel|>commentary"
    "<|message|>checking<|end|><|start|>assistant<|channel|>final<|message|>It is 42.<|return|>"
)


@pytest.mark.parametrize(
    ("content", "answer", "thinking"),
    [
        (HARMONY, "It is 42.", "The user wants a number.\n\nchecking"),
        ("<|channel|>analysis<|message|>cut off before", "", "cut off before"),
        ("<|channel|>final <|constrain|>json<|message|>{}", "{}", None),
        ("<thought>t</thought>Answer", "Answer", "t"),
        ("<reasoning>t</reasoning>Answer", "Answer", "t"),
        ("[THINK]t[/THINK]Answer", "Answer", "t"),
        ("<|START_THINKING|>t<|END_THINKING|>Answer", "Answer", "t"),
        ("\u25c1think\u25b7t\u25c1/think\u25b7Answer", "Answer", "t"),
        ("<seed:think>t</seed:think>Answer", "Answer", "t"),
        ("a[THINK_TIME] and <|channel|>", "a[THINK_TIME] and <|channel|>", None),
        ('```python\nx.split("[THINK]")\n```', '```python\nx.split("[THINK]")\n```', None),
        ("<think>wants <reasoning> tags</think>Final: 42", "Final: 42", "wants <reasoning> tags"),
        ("<|channel|>analysis\n<|message|>secret<|end|>", "", "secret"),
        ("Say <|channel|>final<|message|> aloud", "Say <|channel|>final<|message|> aloud", None),
    ],
)
def test_each_familys_marks_of_thinking_are_known(content: str, answer: str, thinking: str | None) -> None:
    """None of it poses as the answer."""
    reply = read_reply(content, "stop")
    assert (reply.content, reply.reasoning) == (answer, thinking)


def test_an_invalid_answer_names_its_finish_reason() -> None:
    """So that a reader can act on it."""
    assert read_reply("x", "abort").reason == "The server ended the answer with finish_reason 'abort'."


def test_control_characters_go_and_lone_surrogates_are_replaced() -> None:
    """The text must survive JSON, NATS and a terminal."""
    reply = read_reply("a\x00b\x1b[0m\r\n\tc\x85\ud800d", "stop", "x\x07\udfff")
    assert (reply.content, reply.reasoning) == ("ab[0m\n\tc\ufffdd", "x\ufffd")


@settings(deadline=None)
@given(content=st.none() | HOSTILE, finish_reason=st.sampled_from(["stop", "length", "abort", None]))
def test_reading_never_fails_and_leaks_no_tag_outside_code(content: str | None, finish_reason: str | None) -> None:
    """Whatever a server sends."""
    reply = read_reply(content, finish_reason, content)
    assert visible_tags(reply.content) == []
    assert (reply.status is MemberStatus.OK) == (reply.reason is None)
    assert reply.status is not MemberStatus.OK or reply.content
    (reply.content + (reply.reasoning or "")).encode()


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="<", exclude_categories=["Cc"])))
def test_a_text_without_tags_comes_back_as_it_is(text: str) -> None:
    """Apart from blanks around it."""
    assert read_reply(text, "stop").content == text.strip()


@settings(deadline=None)
@given(HOSTILE)
def test_reading_an_answer_again_changes_nothing(text: str) -> None:
    """What was read is clean."""
    once = read_reply(text, "stop").content
    assert read_reply(once, "stop").content == once


TAGS = ["<think>", "</think>", "`<think>", "```x\n</think>\n", "<th<think></think>ink>"]
FENCES = ["think>~~~", "<think>~~~", "think>```", "think>~~~ \t", "~~~\n````\n"]


@pytest.mark.parametrize("piece", [*TAGS, *FENCES])
def test_a_long_text_is_read_in_linear_time(piece: str) -> None:
    """Eight times the text takes about eight times as long, and not the square of it.

    The least of three tries, without the collector of garbage, which looks through whatever the other tests hold.
    """

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        start = time.process_time()
        read_reply(text, "stop")
        answer_of(text, Choice(options=("yes", "no")))
        return time.process_time() - start

    gc.disable()
    try:
        small, large = (min(seconds(size) for _ in range(3)) for size in (40_000, 320_000))
    finally:
        gc.enable()
    assert large < 32 * small


def test_fenced_blocks_come_with_their_language_and_line() -> None:
    """Lines count from one in the whole text."""
    text = "a\n```Python title=x\nx = 1\n```\n\n~~~\n```\n~~~\n  ```json\n  {}\n  ```\n"
    blocks, balanced = fenced_blocks(text)
    assert [block[:3] for block in blocks] == [
        ("python", "x = 1\n", 3),
        ("", "```\n", 7),
        ("json", "  {}\n", 10),
    ]
    assert [text[block.start :].startswith(block.code) for block in blocks] == [True, True, True]
    assert outside_fences(text) == "a\n```Python title=x\n```\n\n~~~\n~~~\n  ```json\n  ```\n"
    assert balanced


@pytest.mark.parametrize("text", ["```py\nx", "~~~\n```\n", "```md\n```py\nx\n```\n```"])
def test_a_fence_that_stays_open_is_noticed(text: str) -> None:
    """The text is not whole, or fences were nested with the same mark."""
    assert fenced_blocks(text)[1] is False


def test_code_on_one_line_is_no_fence() -> None:
    """Three backticks may quote a word."""
    assert fenced_blocks("```x``` is a word") == ([], True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("ANSWER: yes\n\nagent-2 wrote:\n> ANSWER: no", "yes"),
        ("ANSWER: yes\n```\nANSWER: no\n```\n", "yes"),
        ("> ANSWER: no\n\nI differ.\nANSWER: yes", "yes"),
        ("> ANSWER: no", "no"),
        ("So:\n```\nANSWER: no\n```", "no"),
        ("ANSWER: yes\n```\nANSWER: no", "no"),
        ("> ANSWER: yes\n```\nANSWER: no\n```", "no"),
        ("> ANSWER: no\n\nI disagree: \\boxed{yes}", "yes"),
        ("They wrote\n```\nANSWER: no\n```\nwrong: $\\boxed{yes}$", "yes"),
        ("\\boxed{yes}\n> they: \\boxed{no}", "yes"),
        ("> ```\n> q\n\nANSWER: yes\n\n```\nANSWER: no\n```", "yes"),
        ("```\nq\n````\nANSWER: yes\n```\nANSWER: no\n```", "yes"),
        ("ANSWER: yes\n```\ncode\n`````\nANSWER: no\n```\nz\n```", "no"),
    ],
)
def test_a_quoted_or_fenced_answer_counts_where_there_is_no_other(text: str, answer: str) -> None:
    """A member that quotes another has not changed its mind; a fence that stays open is none."""
    assert answer_of(text, Choice(options=("yes", "no"))) == answer


@pytest.mark.parametrize(
    "text", ["10\u00b2", "2\u00b9\u2070", "2\u2075", "\u2462", "x = 3\u00b2", "5e\u00b2", "0,500", "00,123"]
)
def test_a_power_is_not_read_as_other_digits(text: str) -> None:
    """Its plain form (NFKC) would be 102, 210, 25, 3, 500; and a decimal comma is none between thousands."""
    assert answer_of(f"ANSWER: {text}", Number()) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("12 m\u00b2", "12"), ("-$5", "-5"), ("1,500", "1500"), ("\uff11\uff12", "12"), ("7 km\u00b2", "7")],
)
def test_a_raised_digit_of_a_unit_does_not_matter(text: str, number: str) -> None:
    assert answer_of(f"ANSWER: {text}", Number()) == number


@pytest.mark.parametrize(
    "options", [("__init__", "__new__"), ("_a_", "_b_"), ("$x$", "$y$"), ("\\text{a}", "\\text{b}"), ("*.py", "*.*")]
)
def test_an_option_may_have_the_marks_of_markdown_around_it(options: tuple[str, str]) -> None:
    """By itself, and within further marks."""
    for option in options:
        assert answer_of(f"ANSWER: {option}", Choice(options=options)) == option
        assert answer_of(f"ANSWER: `{option}`", Choice(options=options)) == option

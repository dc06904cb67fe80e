"""Conversations as tasks, and the batch files of OpenAI's API."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.batch.chat_records import PASSED_OVER
from tasks.batch.messages import task_of
from tasks.batch.rows import Columns
from tasks.council.base import MAX_TEXT
from tests.tasks.batch.reading import Files, Read
from tests.tasks.batch.sheets import xlsx
from tests.tasks.batch.test_parquet import written
from tests.tasks.batch.test_rows import SLOW

CHAT = Columns(messages="messages")


def user(content: Any) -> dict[str, Any]:
    """A message of the user's."""
    return {"role": "user", "content": content}


def read(files: Files, *rows: Any, columns: Columns = CHAT) -> Read:
    """Rows of JSONL with these messages."""
    return files.read("a.jsonl", "".join(json.dumps({"messages": row}) + "\n" for row in rows), columns)


SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "Yes."}


def test_a_single_message_is_the_task_itself(files: Files) -> None:
    assert read(files, [user("Name it")], [user("a\n\nUser: b")]).tasks == ["Name it", "a\n\nUser: b"]


def test_several_messages_are_blocks_in_order(files: Files) -> None:
    told = read(files, [SYSTEM, user("a")], [{"role": "developer", "content": "x"}, user("a"), ANSWER, user("b\nc")])
    assert told.tasks == ["System: Be brief.\n\nUser: a", "System: x\n\nUser: a\n\nAssistant: Yes.\n\nUser: b\nc"]


def test_parts_of_text_are_lines(files: Files) -> None:
    assert read(files, [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]).tasks == ["a\nb"]


def test_what_says_nothing_is_passed_over(files: Files) -> None:
    message = {**user("a"), "name": "Ann", "tool_calls": None, "annotations": [], "refusal": ""}
    assert read(files, [message]).tasks == ["a"]


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (None, "is empty"),
        ("", "is empty"),
        ([], "is an empty list"),
        ({}, "is no list of messages"),
        (3, "is no list of messages"),
        ("Name it", "is a text that is no JSON (Expecting value"),
        ('{"role": "user"}', "is no list of messages"),
        ("[" * 100_000, "is nested too deep to be read"),
        ([SYSTEM], "ends with a message of the system"),
        ([user("a"), ANSWER], "ends with a message of the assistant; the last one has to be the user's"),
        (["a"], "message 1 is no object"),
        ([{"content": "a"}], "message 1 has no role; a council takes system, developer, user, assistant"),
        ([{"role": "tool", "content": "a"}, user("a")], "message 1 has the role 'tool'"),
        ([{"role": ["user"], "content": "a"}], "message 1 has the role ['user']"),
        ([{"from": "human", "value": "a"}], "message 1 has no role"),
        ([{"role": "user"}], "message 1 has no content"),
        ([user(3)], "message 1 has a content that is neither a text nor a list of parts"),
        ([user("")], "message 1, the user's last one, is empty"),
        ([SYSTEM, user(" \n")], "message 2, the user's last one, is empty"),
        ([user([])], "message 1, the user's last one, is empty"),
        ([user([{"type": "image_url", "image_url": {"url": "x"}}])], "message 1 has a part of the type 'image_url'"),
        ([user([{"type": "input_audio"}])], "message 1 has a part of the type 'input_audio'"),
        ([user(["a"])], "message 1 has a part without a type"),
        ([user([{"type": "text"}])], "message 1 has a part of text without a text"),
        ([{**ANSWER, "tool_calls": [1]}, user("a")], "message 1 has 'tool_calls', which a council takes none of"),
    ],
)
def test_what_no_task_can_be_made_of_is_a_bad_row(files: Files, messages: Any, told: str) -> None:
    found = read(files, [user("fine")], messages)
    assert found.faults == [(2, "messages", "is no conversation")]
    assert told in found.told[0]
    assert found.tasks == ["fine", None]


def test_a_conversation_is_no_longer_than_a_task(files: Files) -> None:
    assert read(files, [SYSTEM, user("x" * MAX_TEXT)]).faults == [(1, "messages", "is too long")]


def test_halves_of_characters_and_nul_in_a_text_of_json_are_told(files: Files) -> None:
    found = files.read("a.csv", 'messages\n"[{""role"": ""user"", ""content"": ""\\ud83d""}]"\n', CHAT)
    assert [row.item for row in found.rows] == [None]
    assert read(files, [user("a\0")]).faults == [(1, "task", "cannot be asked")]


def test_all_formats_have_conversations(files: Files) -> None:
    """As text of JSON where cells are texts, as lists where they can be."""
    chat = [SYSTEM, user("Name it")]
    task = "System: Be brief.\n\nUser: Name it"
    text = json.dumps(chat)
    assert files.read("a.csv", 'messages,id\n"' + text.replace('"', '""') + '",k\n', CHAT).tasks == [task]
    assert files.read("a.xlsx", xlsx(("messages",), (text,)), CHAT).tasks == [task]
    assert files.read("a.xlsx", xlsx(("x", "messages"), (1, "[]")), CHAT).told == ["cell B2: is an empty list"]
    assert files.read("a.parquet", written({"messages": [text]}), CHAT).tasks == [task]
    mixed = [[{**SYSTEM, "tool_calls": None}, {**user("Name it"), "tool_calls": None}]]
    assert files.read("a.parquet", written({"messages": pa.array(mixed)}), CHAT).tasks == [task]
    assert "no column 'chat'" in files.refused("a.csv", "messages,id\nx,y\n", Columns(messages="chat"))


@SLOW
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["user", "text", "role"]),
        lambda one: (
            st.lists(one, max_size=3)
            | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "x"]), one, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_whatever_the_messages_are_nothing_is_raised(messages: Any) -> None:
    found = task_of([messages, user(messages)], "m")
    assert found


def line(id_: Any = "1", **changes: Any) -> str:
    """A request of a batch file; `body` is what its body has besides."""
    body = {"model": "council/dev", "messages": [user("Name it")], **changes.pop("body", {})}
    request = {"custom_id": id_, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps({**request, **changes}) + "\n"


def test_a_batch_file_of_openais_is_taken_as_it_is(files: Files) -> None:
    content = "\ufeff\n" + line("request-1") + "\n" + line("a b", body={"messages": [SYSTEM, user("b")]})
    found = files.read("a.jsonl", content)
    assert (found.ids, found.lines) == (["request-1", "a b"], [2, 4])
    assert found.tasks == ["Name it", "System: Be brief.\n\nUser: b"]
    assert found.notes == {}


@pytest.mark.parametrize(("model", "strategy"), [("council/dev", None), ("council/dev:rank", "rank")])
def test_its_model_names_the_council(files: Files, model: str, strategy: str | None) -> None:
    from tasks.batch.files import opened

    (files.folder / "a.jsonl").write_text(line(body={"model": model}))
    with opened(files.folder / "a.jsonl") as records:
        assert (records.council, records.strategy) == ("dev", strategy)


@pytest.mark.parametrize(
    "model", ["gpt-4o", "council/", "council/a b", "council/dev:luck", "council/dev:", "dev", None, 3, ["council/dev"]]
)
def test_a_first_line_that_asks_no_council_is_refused(files: Files, model: Any) -> None:
    told = files.refused("a.jsonl", line(body={"model": model}))
    assert told.startswith("a.jsonl line 1: body.model: ")
    assert "the model is council/NAME or council/NAME:STRATEGY" in told


def test_a_row_that_asks_another_council_is_bad(files: Files) -> None:
    others = ["council/qa", "council/dev", "council/dev:rank", "gpt-4o"]
    content = "".join(line(str(number), body={"model": model}) for number, model in enumerate(["council/dev", *others]))
    found = files.read("a.jsonl", content)
    assert found.faults == [
        (2, "body.model", "is another council"),
        (4, "body.model", "is another council"),
        (5, "body.model", "is no council"),
    ]
    assert "the first line asks council/dev, and a batch asks one council" in found.told[0]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"url": "/v1/embeddings"}, "url: '/v1/embeddings' cannot be asked; a batch takes /v1/chat/completions alone"),
        ({"url": None}, "url: nothing cannot be asked"),
        ({"method": "GET"}, "method: 'GET' cannot be asked; a batch takes POST alone"),
        ({"body": {"stream": True}}, "body.stream: is true; a batch streams nothing"),
    ],
)
def test_what_no_batch_takes_is_refused_with_its_line(files: Files, wrong: dict[str, Any], told: str) -> None:
    assert files.refused("a.jsonl", line("a") + line("b", **wrong)).startswith(f"a.jsonl line 2: {told}")
    assert files.refused("a.jsonl", line("a", **wrong)).startswith(f"a.jsonl line 1: {told}")


def test_a_repeated_id_is_refused_with_both_lines(files: Files) -> None:
    assert files.refused("a.jsonl", line("a") + line("a")).startswith("a.jsonl line 2: id: 'a' is the id of line 1")


@pytest.mark.parametrize(
    "body",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"tool_choice": "required"},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"response_format": {"type": "json_object"}},
        {"stop": ["."]},
        {"logprobs": True},
        {"logit_bias": {"1": 5}},
        {"modalities": ["audio"]},
        {"guided_json": {"type": "object"}},
        {"stream": 1},
    ],
)
def test_a_field_that_asks_for_more_than_an_answer_makes_a_bad_row(files: Files, body: dict[str, Any]) -> None:
    found = files.read("a.jsonl", line("a", body=body) + line("b"))
    assert [fault[1:] for fault in found.faults] == [(f"body.{next(iter(body))}", "cannot be asked")]
    assert "a council takes no such field" in found.told[0]
    assert found.tasks == [None, "Name it"]


def test_fields_that_change_nothing_are_passed_over_and_counted(files: Files) -> None:
    body = {"temperature": 0.2, "max_tokens": 100, "user": "ann", "seed": 1, "metadata": {"a": "b"}}
    quiet = {
        "n": 1,
        "tools": [],
        "tool_choice": "none",
        "stream": False,
        "response_format": {"type": "text"},
        "stop": None,
    }
    found = files.read("a.jsonl", line("a", body=body) + line("b", body={"temperature": 1, **quiet}))
    assert found.tasks == ["Name it"] * 2
    assert found.notes == {
        f"body.{field} passed over: a council's members have settings of their own": 2 if field == "temperature" else 1
        for field in body
    }
    assert set(body) <= PASSED_OVER


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (line(None), (2, "custom_id", "is no text")),
        (line(7), (2, "custom_id", "is no text")),
        (line(""), (2, "custom_id", "is no text")),
        (line("x" * 513), (2, "id", "is too long")),
        (line("b").replace('"body": {', '"body": "x", "other": {'), (2, "body", "is no object")),
        (line("b", body={"messages": []}), (2, "messages", "is no conversation")),
        (line("b", body={"messages": None}), (2, "messages", "is no conversation")),
        ("{}}\n", (2, "row", "is no JSON")),
    ],
)
def test_a_request_that_is_none_is_a_bad_row(files: Files, row: str, fault: tuple[int, str, str]) -> None:
    found = files.read("a.jsonl", line("a") + row + line("c"))
    assert (found.faults, found.tasks) == ([fault], ["Name it", None, "Name it"])


def test_columns_say_nothing_of_such_a_file(files: Files) -> None:
    for columns in (Columns("x"), Columns("task"), Columns(id="x"), Columns(context=("x",)), CHAT):
        assert "is a batch file of OpenAI's API" in files.refused("a.jsonl", line(), columns)
    assert files.read("a.jsonl", line(), Columns(coerce=True)).tasks == ["Name it"]


def test_only_the_first_line_tells_what_a_file_is(files: Files) -> None:
    found = files.read("a.jsonl", '{"task": "a"}\n' + line())
    assert (found.tasks, found.faults) == (["a", None], [(2, "task", "is empty")])
    told = files.refused("a.jsonl", "{\n".replace("{", '{"a"') + line())
    assert "a batch file of OpenAI's API is known by its first line" in told
    lone = line("a", body={"messages": [user("a\ud83d")]})
    assert files.read("a.jsonl", lone).replaced == 1

"""The simulator's dialects as a client sees them; that ours speaks each of them is tested in `tests/blocks`."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from infra.simulator import dialects
from infra.simulator.__main__ import read_arguments

pytestmark = pytest.mark.servers


def test_dialects_are_put_together_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """One that nobody knows is refused with the names of all."""
    told = read_arguments(["--dialect", "no_seed", "--dialect", "harmony"])
    assert told.dialects == ("no_seed", "harmony")
    with pytest.raises(SystemExit) as left:
        read_arguments(["--dialect", "klingon"])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert "--dialect" in said
    assert "'long_header'" in said


def test_every_dialect_is_described() -> None:
    """In the table, where somebody looks for it."""
    assert dialects.__doc__ is not None
    words = set(dialects.__doc__.replace(",", " ").split())
    assert set(get_args(dialects.Dialect)) <= words


async def test_a_field_that_is_refused_is_in_the_book(running: Any) -> None:
    """With the fields that had a value, the form of the answer with its type."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    async with running(dialects=("no_seed",)) as client:
        status, body = await client.chat("with", response_format=form)
        fine, _ = await client.chat("without", seed=None, max_tokens=9)
        book = (await client.calls())["by_id"]

    assert (status, body["detail"][0]["loc"]) == (422, ["body", "seed"])
    assert fine == 200
    assert book["with"]["asked"] == ["messages", "response_format:json_schema", "seed"]
    assert book["without"]["asked"] == ["max_tokens", "messages"]


@pytest.mark.parametrize("dialect", ["html", "redirect"])
async def test_what_stands_before_a_server_answers_for_all_of_it(running: Any, dialect: str) -> None:
    """But for what is the simulator's own."""
    async with running(dialects=(dialect,)) as client:
        async with client.session.get(f"{client.url}/v1/models", allow_redirects=False) as answer:
            status, place = answer.status, answer.headers.get("Location", "")
        own, _ = await client.send("GET", "/sim/calls")

    assert (status, place) == ((301, "https://elsewhere.example/v1/models") if dialect == "redirect" else (502, ""))
    assert own == 200


APART = {"html", "redirect", "error_in_200", "one_piece", "long_header", "default_temperature"}
"""They have no stream, need another client, or cannot say the same twice."""


@pytest.mark.parametrize("dialect", [name for name in get_args(dialects.Dialect) if name not in APART])
async def test_a_stream_and_an_answer_in_one_piece_say_the_same(running: Any, dialect: str) -> None:
    """Of what the dialect takes, from the second try on."""
    async with running(dialects=(dialect,)) as client:
        await client.chat("call", seed=None, temperature=0)
        _, whole = await client.chat("call", seed=None, temperature=0)
        events = await client.stream("call", seed=None, temperature=0)

    choice = whole["choices"][0]
    pieces = [event["choices"][0] for event in events[:-1] if event["choices"]]
    assert events[-1] == "[DONE]"
    assert pieces[-1]["finish_reason"] == choice["finish_reason"]
    if isinstance(choice["message"]["content"], str):
        assert "".join(piece["delta"]["content"] for piece in pieces) == choice["message"]["content"]

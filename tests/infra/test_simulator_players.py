"""Players: how often they are right, judge rightly and follow the place in the list, as they were told.

The prompts and schemas are the product's own. What a player draws follows from the request's id alone, so that the
same numbers come out in every run. Frequencies have to lie where a binomial of the given chance lies in 99.99 % of
all cases.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tasks.council.closed_answers import Choice, answer_of
from tasks.council.council import Member
from tasks.council.models import Item
from tasks.council.prompts.propose import propose_messages
from tasks.council.prompts.review import ballot_schema, review_messages
from tasks.council.prompts.revise import revise_messages
from tasks.council.prompts.synthesize import synthesis_messages
from tasks.council.voting.ballots import DEFAULT_CRITERIA, Opinion, Review, Score, Sheet, labels, read_ballot

pytestmark = pytest.mark.servers

QUESTIONS = 600
IN_FLIGHT = 16
OUTSIDE = 1e-4
OPTIONS = ("north", "south", "east", "west")
FORM = Choice(options=OPTIONS)
MEMBER = Member(agent_id="m1", role="DEV")
KEY = {"match": "Question ", "answer": "south", "options": OPTIONS}


def item(number: int, closed: bool = True) -> Item:
    """A question of the key."""
    form = FORM if closed else None
    return Item(id=f"q{number}", task=f"Question {number}: where does the river flow?", answer_format=form)


def call(number: int, stage: str, member: str = "m1") -> str:
    """The X-Request-Id of a call."""
    return f"t-1:q{number}:{stage}:{member}"


def player(**fields: Any) -> dict[str, Any]:
    """A player for all members, that does nothing in particular."""
    return {"match": ":m[0-9]+$", "accuracy": 0.5, "judgement": 0.5, **fields}


async def play(client: Any, *players: dict[str, Any], key: Sequence[dict[str, Any]] = (KEY,)) -> None:
    """Put players on."""
    status, body = await client.send("PUT", "/sim/players", {"players": players, "key": key})
    assert status == 200, body


async def texts(client: Any, calls: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """The answers to many calls, some at a time."""
    some = asyncio.Semaphore(IN_FLIGHT)

    async def one(request_id: str, fields: dict[str, Any]) -> str:
        async with some:
            return str(await client.content(request_id=request_id, **fields))

    return await asyncio.gather(*(one(*each) for each in calls))


async def proposed(client: Any, member: str, count: int = QUESTIONS) -> list[str | None]:
    """The answers of a member to the questions."""
    asked = ((call(n, "propose-0", member), {"messages": propose_messages(MEMBER, item(n))}) for n in range(count))
    return [answer_of(text, FORM) for text in await texts(client, asked)]


def ballot_of(number: int, answers: Sequence[str | None], member: str = "m1") -> tuple[str, dict[str, Any]]:
    """A reviewer's call on proposals with these answers, shown in that order, which is not the labels'."""
    named = labels(len(answers))[::-1]
    sheet = Sheet(voter=member, order="reverse", shown=tuple((label, f"by-{label}") for label in named))
    written = {f"by-{label}": proposal(answer) for label, answer in zip(named, answers, strict=True)}
    messages = review_messages(MEMBER, item(number), sheet, written, DEFAULT_CRITERIA, f"t-1:q{number}")
    schema = ballot_schema(sheet.labels, DEFAULT_CRITERIA)
    form = {"type": "json_schema", "json_schema": {"name": "ballot", "schema": schema}}
    return call(number, "review-0", member), {"messages": messages, "response_format": form}


def proposal(answer: str | None) -> str:
    """A text that first says something else."""
    return "\n\n".join(("ANSWER: west", "Because.", f"ANSWER: {answer}")) if answer else "It cannot be said."


def shown_in(fields: dict[str, Any]) -> list[str]:
    """Labels of a reviewer's call, in the order shown."""
    schema = fields["response_format"]["json_schema"]["schema"]
    return list(schema["properties"]["opinions"]["properties"])


async def ballots(client: Any, calls: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The ballots, each valid for its schema."""
    read = [json.loads(text) for text in await texts(client, calls)]
    for ballot, (_, fields) in zip(read, calls, strict=True):
        jsonschema.Draft202012Validator(fields["response_format"]["json_schema"]["schema"]).validate(ballot)
    return read


def holds(seen: Iterable[bool], chance: float) -> bool:
    """Whether a binomial of this chance is as far out only once in 10 000 times, on either side."""
    listed = [bool(one) for one in seen]
    trials, hits = len(listed), sum(listed)
    mass = [math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(trials + 1)]
    return min(sum(mass[: hits + 1]), sum(mass[hits:])) >= OUTSIDE / 2


def test_the_interval_tells_chances_apart() -> None:
    """The yardstick of these tests: some off are in, many off are out."""
    assert holds([True] * 420 + [False] * 180, 0.7)
    assert holds([True] * 450 + [False] * 150, 0.7)
    assert not holds([True] * 470 + [False] * 130, 0.7)
    assert not holds([True] * 370 + [False] * 230, 0.7)
    assert holds([True] * 9, 1.0)
    assert not holds([True] * 9 + [False], 1.0)


# --- proposals ------------------------------------------------------------------------------------


async def test_members_are_right_as_often_as_told_and_independently(running: Any) -> None:
    """Each by its own accuracy, wrong ones spread over the other options, and a majority as theory has it."""
    async with running() as client:
        await play(client, player(match=":m3$", accuracy=0.4), player(accuracy=0.7))
        said = [await proposed(client, f"m{number}") for number in (1, 2, 3)]

    right = [[answer == "south" for answer in answers] for answers in said]
    wrong = Counter(answer for answers in said for answer in answers if answer != "south")
    assert [holds(one, chance) for one, chance in zip(right, (0.7, 0.7, 0.4), strict=True)] == [True] * 3
    assert set(wrong) == {"north", "east", "west"}
    for option in wrong:
        assert holds([True] * wrong[option] + [False] * (wrong.total() - wrong[option]), 1 / 3)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(correlation(right[one], right[other])) < 3.9 / math.sqrt(QUESTIONS)
    most = 0.7 * 0.7 + 2 * 0.7 * 0.3 * 0.4
    assert holds((sum(votes) >= 2 for votes in zip(*right, strict=True)), most)


def correlation(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Pearson's, which has a standard deviation of 1 / sqrt(n) where there is none."""
    both = sum(a and b for a, b in zip(one, other, strict=True)) / len(one)
    p, q = sum(one) / len(one), sum(other) / len(other)
    return (both - p * q) / math.sqrt(p * (1 - p) * q * (1 - q))


async def test_a_call_always_says_the_same(running: Any) -> None:
    """On every server, whatever came before, whatever the seed, and when it is asked again."""
    async with running() as one, running() as two:
        for client in (one, two):
            await play(client, player())
        first = await proposed(one, "m1", 40)
        await proposed(two, "m2", 3)
        second = await proposed(two, "m1", 40)
        messages = propose_messages(MEMBER, item(7))
        again = [
            answer_of(await two.content(request_id=f"{call(7, 'propose-0')}{more}", messages=messages, **fields), FORM)
            for more, fields in (("", {"seed": 2}), ("", {"temperature": 0}), (":again", {"seed": 3}))
        ]

    assert first == second
    assert set(again) == {first[7]}
    assert len(set(first)) > 1


async def test_the_choices_of_one_call_are_drawn_one_by_one(running: Any) -> None:
    """`n` asks the same player n times."""
    async with running() as client:
        await play(client, player())
        _, body = await client.chat(call(1, "propose-0"), messages=propose_messages(MEMBER, item(1)), n=200)

    said = [answer_of(choice["message"]["content"], FORM) for choice in body["choices"]]
    assert holds((answer == "south" for answer in said), 0.5)


async def test_an_open_question_is_answered_too(running: Any) -> None:
    """The line stands at the end of the usual text, without a section that asks for it."""
    async with running() as client:
        messages = propose_messages(MEMBER, item(1, closed=False))
        before = await client.content(request_id=call(1, "propose-0"), messages=messages)
        await play(client, player(accuracy=1))
        text = await client.content(request_id=call(1, "propose-0"), messages=messages)

    assert text == f"{before}\n\nANSWER: south"


# --- reviews --------------------------------------------------------------------------------------


async def test_reviewers_judge_as_well_as_told(running: Any) -> None:
    """Of a right and a wrong proposal the right one is ranked first with the chance of judging rightly."""
    async with running() as client:
        await play(client, player(judgement=0.8))
        asked = [ballot_of(n, ("east", "south") if n % 2 else ("south", "east")) for n in range(QUESTIONS)]
        given = await ballots(client, asked)

    best = ["A" if n % 2 else "B" for n in range(QUESTIONS)]
    assert holds((ballot["ranking"][0] == one for ballot, one in zip(given, best, strict=True)), 0.8)
    seen = [{label: taken_for_right(opinion) for label, opinion in ballot["opinions"].items()} for ballot in given]
    rightly = [
        {label: taken == (label == one) for label, taken in each.items()} for each, one in zip(seen, best, strict=True)
    ]
    assert holds((each["A"] for each in rightly), 0.8)
    assert holds((each["B"] for each in rightly), 0.8)
    assert holds((each["A"] and each["B"] for each in rightly), 0.8 * 0.8)
    for ballot, each in zip(given, seen, strict=True):
        assert each[ballot["ranking"][0]] >= each[ballot["ranking"][1]]


def taken_for_right(opinion: dict[str, Any]) -> bool:
    """What the scores say, which all say the same."""
    scores = {one["score"] for one in opinion["scores"].values()}
    assert scores <= {8, 9, 10} or scores <= {1, 2, 3, 4}
    return min(scores) >= 8


@pytest.mark.parametrize("bias", [0.0, 0.3, 1.0])
async def test_equals_are_ranked_as_shown_as_often_as_told(running: Any, bias: float) -> None:
    """Of three right ones, the order shown comes with the bias, and by chance once in six times beside."""
    async with running() as client:
        await play(client, player(judgement=1, position_bias=bias))
        asked = [ballot_of(n, ("south",) * 3) for n in range(QUESTIONS // 2)]
        given = await ballots(client, asked)

    shown = [shown_in(fields) for _, fields in asked]
    firsts = (ballot["ranking"][0] == order[0] for ballot, order in zip(given, shown, strict=True))
    assert shown[0] == ["C", "B", "A"]
    assert holds(firsts, bias + (1 - bias) / 3)
    assert holds(
        (ballot["ranking"] == order for ballot, order in zip(given, shown, strict=True)), bias + (1 - bias) / 6
    )


@pytest.mark.parametrize("count", [2, 3, 6])
async def test_a_ballot_has_its_form(running: Any, count: int) -> None:
    """It is valid for its schema and counts; who judges without fault puts the right ones before the rest."""
    answers = [("south", "east", None)[n % 3] for n in range(count)]
    async with running() as client:
        await play(client, player(judgement=1))
        asked = [ballot_of(n, answers) for n in range(12)]
        given = await ballots(client, asked)

    order = shown_in(asked[0][1])
    right = {label for label, answer in zip(order, answers, strict=True) if answer == "south"}
    sheet = Sheet(voter="m1", order="reverse", shown=tuple((label, f"by-{label}") for label in order))
    for ballot in given:
        assert read_ballot(json.dumps(ballot), sheet, DEFAULT_CRITERIA).ranking
        assert sorted(ballot["ranking"]) == sorted(order)
        assert set(ballot["ranking"][: len(right)]) == right
        assert {label for label, opinion in ballot["opinions"].items() if taken_for_right(opinion)} == right


async def test_json_of_another_form_stays_as_it_is(running: Any) -> None:
    """A review with another schema, or on other labels than those in the prompt, is drawn as without a player."""
    request_id, fields = ballot_of(1, ("south", "east"))
    foreign = ballot_of(1, ("south", "east", "west"))[1]["response_format"]
    listed = {"type": "json_schema", "json_schema": {"name": "list", "schema": {"type": "array"}}}
    async with running() as client:
        for form in (foreign, listed):
            wanted = {**fields, "response_format": form}
            before = await client.content(request_id=request_id, **wanted)
            await play(client, player())
            after = await client.content(request_id=request_id, **wanted)
            await client.send("DELETE", "/sim/players")
            assert before == after


# --- revisions and synthesis ----------------------------------------------------------------------


def opinion() -> Opinion:
    """A critique."""
    return Opinion(scores={"clarity": Score(score=5, reason="It is so.")}, critique="ANSWER: west is what I would say.")


async def test_a_revision_makes_some_wrong_answers_right_and_none_wrong(running: Any) -> None:
    """Those that gain nothing keep the answer they gave, and never take one over from a critique."""
    async with running() as client:
        await play(client, player(revision_gain=0.25))
        revised = {}
        for said in ("south", "east", None):
            messages = [
                revise_messages(MEMBER, item(n), proposal(said), [opinion()], "salt") for n in range(QUESTIONS // 2)
            ]
            asked = ((call(n, "revise-1"), {"messages": chat}) for n, chat in enumerate(messages))
            revised[said] = [answer_of(text, FORM) for text in await texts(client, asked)]

    assert set(revised["south"]) == {"south"}
    assert set(revised["east"]) == {"south", "east"}
    assert holds((answer == "south" for answer in revised["east"]), 0.25)
    assert set(revised[None]) == set(OPTIONS)
    assert holds((answer == "south" for answer in revised[None]), 0.25)


@pytest.mark.parametrize(("first", "chance"), [("south", 0.8 + 0.2 * 0.6), ("east", 0.2 * 0.6)])
async def test_a_chairman_takes_over_the_first_or_answers_itself(running: Any, first: str, chance: float) -> None:
    """By its judgement the first proposal's answer, be it right or wrong; else one of its own, by its accuracy."""
    sources = {"m2": proposal(first), "m1": proposal("north")}
    ballot = Review(voter="m3", order="forward", shown=("m2",), ranking=("m2",), opinions={"m2": opinion()})
    async with running() as client:
        await play(client, player(accuracy=0.6, judgement=0.8))
        messages = [
            synthesis_messages(MEMBER, item(n), sources, ("m1", "m2", "m3"), [ballot], f"t-1:q{n}")
            for n in range(QUESTIONS // 2)
        ]
        asked = ((call(n, "synthesize"), {"messages": chat}) for n, chat in enumerate(messages))
        said = [answer_of(text, FORM) for text in await texts(client, asked)]

    assert holds((answer == "south" for answer in said), chance)


# --- who plays, and when --------------------------------------------------------------------------


async def test_the_first_that_matches_counts_and_nothing_else_changes(running: Any) -> None:
    """Without a player, without a key or outside the stages all is as before, and again after the end."""
    one, other = item(1), item(12)
    calls = {
        "plays": (call(1, "propose-0"), one),
        "second entry": (call(12, "propose-0"), other),
        "no player": (call(1, "propose-0", "guest"), one),
        "no key": (call(1, "propose-0"), Item(id="x", task="Where to?", context={"as in": "Question 1:"})),
        "no stage": ("m1", one),
    }
    asked = [(request_id, {"messages": propose_messages(MEMBER, wanted)}) for request_id, wanted in calls.values()]
    key = [{**KEY, "match": "Question 1:"}, {**KEY, "answer": "west"}]
    async with running() as client:
        before = await texts(client, asked)
        await play(client, player(accuracy=1), player(accuracy=0), key=key)
        during = await texts(client, asked)
        await play(client, key=key)
        alone = await texts(client, asked)
        await play(client, player(accuracy=1), key=key)
        _, ended = await client.send("DELETE", "/sim/players")
        after = await texts(client, asked)

    changed = [f"{before[0]}\n\nANSWER: south", f"{before[1]}\n\nANSWER: west", *before[2:]]
    assert during == changed
    assert before == alone == after
    assert ended == {"players": [], "key": []}


async def test_players_are_listed_and_replaced(running: Any) -> None:
    """What is put takes the place of what was there."""
    async with running() as client:
        await play(client, player(accuracy=0.9), player())
        await play(client, player(accuracy=0.2))
        _, listed = await client.send("GET", "/sim/players")

    kept = {"match": ":m[0-9]+$", "accuracy": 0.2, "judgement": 0.5, "position_bias": 0.0, "revision_gain": 0.0}
    assert listed == {"players": [kept], "key": [{**KEY, "options": list(OPTIONS)}]}


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ([], None, "must be a JSON object"),
        ({"player": []}, "player", "unknown; must be one of players, key"),
        ({"players": [player(accuracy=1.1)]}, "players.0.accuracy", "less than or equal to 1"),
        ({"players": [player(), player(judgement="x")]}, "players.1.judgement", "valid number"),
        ({"players": [{"match": "m1", "judgement": 1}]}, "players.0.accuracy", "Field required"),
        ({"players": [player(position_bias=-0.1)]}, "players.0.position_bias", "greater than or equal to 0"),
        ({"players": [player(match="(")]}, "players.0.match", "regular expression"),
        ({"players": [player(bias=1)]}, "players.0.bias", "must be one of match, accuracy, judgement"),
        ({"key": [{**KEY, "answer": "up"}]}, "key.0.options", "must contain the answer, 'up'"),
        ({"key": [{**KEY, "options": ["south"]}]}, "key.0.options", "at least 2"),
        ({"key": [{**KEY, "options": ["south", "South.", "up"]}]}, "key.0.options", "must differ"),
        ({"key": [{**KEY, "options": ["south", "u\np"]}]}, "key.0.options.1", "pattern"),
        ({"key": [{**KEY, "match": ""}]}, "key.0.match", "at least 1"),
        ({"key": [{**KEY, "right": "up"}]}, "key.0.right", "must be one of match, answer, options"),
    ],
)
async def test_wrong_players_are_refused(running: Any, body: Any, field: str | None, words: str) -> None:
    """The answer names the field and what would be right, and those before stay."""
    async with running() as client:
        await play(client, player())
        _, before = await client.send("GET", "/sim/players")
        status, answer = await client.send("PUT", "/sim/players", body)
        _, after = await client.send("GET", "/sim/players")

    assert (status, answer["error"]["param"]) == (400, field)
    assert words in answer["error"]["message"]
    assert field is None or answer["error"]["message"].startswith(f"{field}: ")
    assert before == after


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, b"--players: %s: No such file or directory"),
        (b"{", b"--players: the players must be a JSON object, such as "),
        (b'{"key": [{"match": "Q"}]}', b"--players: key.0.answer: Field required"),
    ],
)
async def test_a_wrong_file_is_named(tmp_path: Path, content: bytes | None, words: bytes) -> None:
    """The process leaves with status 2 and says what would be right."""
    file = tmp_path / "players.json"
    if content is not None:
        file.write_bytes(content)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infra.simulator", "--players", str(file), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()

    assert process.returncode == 2
    assert words.replace(b"%s", str(file).encode()) in said


def test_a_file_has_players_from_the_start(tmp_path: Path) -> None:
    """It has the form of what is put."""
    from infra.simulator.__main__ import read_arguments

    file = tmp_path / "players.json"
    file.write_text(json.dumps({"players": [player()], "key": [KEY]}))
    players = read_arguments(["--players", str(file)]).players

    assert (players.players[0].accuracy, players.key[0].answer) == (0.5, "south")
    assert read_arguments([]).players.players == ()

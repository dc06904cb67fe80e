"""What reviewers are shown, what they may answer, and what a hostile proposal can do about it."""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.council import Member
from tasks.council.models import Item
from tasks.council.prompt_texts import REVIEW_CHARTER
from tasks.council.prompts.delimiters import MAX_PROPOSAL, fence, mark_of, neutral
from tasks.council.prompts.review import ask_again, ballot_schema, review_messages
from tasks.council.voting.ballots import (
    DEFAULT_CRITERIA,
    MAX_BALLOT,
    MAX_CRITERIA,
    MAX_CRITIQUE,
    MAX_REASON,
    MAX_SCORE,
    MIN_SCORE,
    Criterion,
    InvalidBallot,
    Sheet,
    criteria_of,
    label_authors,
    labels,
    read_ballot,
    sheets,
)
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.tally import tally

ITEM = Item(id="i", task="Write a queue", rubric="Clean", requirements=("Use type hints",))
COUNCIL = [f"m{number}" for number in range(5)]
ATTACKS = yaml.safe_load(Path(__file__).with_name("attacks.yaml").read_text())
RIVAL = "A sound proposal with a plan."
TEXTS = st.text(st.characters() | st.sampled_from("<>/[]|#\u200b\u200d\uff1cproposalthink-"), max_size=60)


def member(agent_id: str = "m0") -> Member:
    """A reviewer."""
    return Member(agent_id=agent_id, role="QA")


def user(sheet: Sheet, proposals: dict[str, str], item: Item = ITEM) -> str:
    """The text of the user's message."""
    chat = review_messages(member(sheet.voter), item, sheet, proposals, DEFAULT_CRITERIA, "salt")
    assert chat[0] == {"role": "system", "content": REVIEW_CHARTER}
    return chat[1]["content"]


def texts(**other: str) -> dict[str, str]:
    """Proposals of a council by author."""
    return {author: f"The plan of number {number}." for number, author in enumerate(COUNCIL)} | other


def sections(prompt: str, mark: str) -> tuple[list[tuple[str, str]], str]:
    """What a strict reader of the prompt takes for proposals, by label, and what is left beside them."""
    pattern = re.compile(rf'^<proposal-{mark} label="([A-Z]+)">\n(.*?)\n</proposal-{mark}>$', re.DOTALL | re.MULTILINE)
    return [(found[1], found[2]) for found in pattern.finditer(prompt)], pattern.sub("", prompt)


# --- labels and orders ----------------------------------------------------------------------------


def test_labels_go_on_after_z() -> None:
    """As columns of a sheet do."""
    assert labels(3) == ("A", "B", "C")
    assert labels(28)[25:] == ("Z", "AA", "AB")
    assert labels(703)[-2:] == ("ZZ", "AAA")
    assert len(set(labels(1000))) == 1000


def test_labels_are_drawn_anew_for_each_item_and_do_not_depend_on_the_listing() -> None:
    """Every author gets every label about as often."""
    assert label_authors(COUNCIL, "d:i:review-0") == label_authors(reversed(COUNCIL), "d:i:review-0")
    first = [label_authors(COUNCIL, f"d:{number}:review-0")["A"] for number in range(500)]
    assert all(60 < first.count(author) < 140 for author in COUNCIL)


@given(st.integers(1, 40), st.integers(0, 3), st.text(max_size=5))
def test_each_sees_the_others_in_one_of_two_orders(count: int, guests: int, salt: str) -> None:
    """Nobody sees itself; both orders have the same labels; the halves differ by one at most."""
    authors = [f"m{number}" for number in range(count)]
    voters = [*authors, *(f"guest-{number}" for number in range(guests))]
    drawn = sheets(authors, voters, salt)
    forward = list(label_authors(authors, salt).items())
    assert sorted(drawn) == sorted(voters)
    for voter, sheet in drawn.items():
        line = forward if sheet.order == "forward" else forward[::-1]
        assert list(sheet.shown) == [one for one in line if one[1] != voter]
    ahead = sum(sheet.order == "forward" for sheet in drawn.values())
    assert abs(2 * ahead - len(voters)) <= 1
    for order in ("forward", "reverse"):
        half = [sheet.labels for sheet in drawn.values() if sheet.order == order]
        assert len({shown[: count // 2] for shown in half}) <= 1


def test_reviewers_of_one_order_share_the_first_half_of_the_proposals() -> None:
    """Word for word, so that the model server computes it once."""
    proposals = texts()
    drawn = sheets(COUNCIL, COUNCIL, "salt").values()
    for order in ("forward", "reverse"):
        prompts = [user(sheet, proposals) for sheet in drawn if sheet.order == order]
        assert len(prompts) >= 2
        assert os.path.commonprefix(prompts).count("\n</proposal-") >= len(COUNCIL) // 2


def test_the_message_tells_what_differs_last() -> None:
    """Task, criteria, proposals, then what this reviewer is asked, and its role at the very end."""
    sheet = sheets(COUNCIL, COUNCIL, "salt")["m2"]
    prompt = user(sheet, texts())
    found = [prompt.index(f"# {heading}\n") for heading in ("Task", "Rubric", "Requirements", "Criteria", "Proposals")]
    found += [prompt.index("# Your ballot\n"), prompt.index("# Your role\nQA: ")]
    assert found == sorted(found)
    assert f"The proposals are {', '.join(sheet.labels)}." in prompt
    assert not any(author in prompt for author in COUNCIL)
    assert texts()["m2"] not in prompt


# --- criteria -------------------------------------------------------------------------------------


def test_criteria_are_the_entries_of_the_rubrics_list() -> None:
    """A rubric in prose is one criterion; without one there are three."""
    assert criteria_of(None) == DEFAULT_CRITERIA
    assert criteria_of("Clean and well-documented code") == (
        Criterion(key="clean_and_well_documented", text="Clean and well-documented code"),
    )
    listed = criteria_of(
        "Judge by:\n- Is it right?\n* Is it right?\n2. \u00dcberall l\u00e4uft es\n\u2022 \u901f\u5ea6"
    )
    assert [one.key for one in listed] == ["is_it_right", "is_it_right_2", "berall_l_uft_es", "criterion_4"]


@given(st.text(min_size=1, max_size=300))
def test_every_rubric_has_criteria_with_distinct_keys(rubric: str) -> None:
    """At most eight."""
    keys = [one.key for one in criteria_of(rubric)]
    assert 1 <= len(set(keys)) == len(keys) <= MAX_CRITERIA


# --- the form of a ballot -------------------------------------------------------------------------


def keywords(schema: dict[str, Any]) -> set[str]:
    """All keywords of a schema, without the names of properties and definitions."""
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    inner += [schema["items"]] if "items" in schema else []
    return set(schema).union(*map(keywords, inner))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 63])
def test_the_schema_uses_only_what_model_servers_know(count: int) -> None:
    """No uniqueItems, no not, no reference to elsewhere, and every text is bounded."""
    schema = ballot_schema(labels(count), DEFAULT_CRITERIA)
    known = {"type", "properties", "required", "additionalProperties", "enum", "items", "minItems", "maxItems"}
    assert keywords(schema) <= known | {"minimum", "maximum", "minLength", "maxLength", "$ref", "$defs"}
    assert list(schema["properties"]) == ["opinions", "ranking"]
    text = json.dumps(schema)
    assert json.loads(text) == schema
    assert set(re.findall(r'"\$ref": "([^"]*)"', text)) == {"#/$defs/opinion"}
    assert len(text) < 6000


def test_up_to_four_proposals_every_ranking_is_listed() -> None:
    """So that a constrained model cannot rank one twice."""
    assert ballot_schema(["B", "A"], DEFAULT_CRITERIA)["properties"]["ranking"] == {"enum": [["A", "B"], ["B", "A"]]}
    assert len(ballot_schema(labels(4), DEFAULT_CRITERIA)["properties"]["ranking"]["enum"]) == 24
    assert ballot_schema(labels(5), DEFAULT_CRITERIA)["properties"]["ranking"]["minItems"] == 5


# --- reading a ballot -----------------------------------------------------------------------------

SHEET = Sheet(voter="m0", order="reverse", shown=(("D", "m3"), ("C", "m1"), ("A", "m2")))


def answer(ranking: Sequence[str] = ("C", "A", "D"), **opinions: Any) -> dict[str, Any]:
    """An answer on the three proposals shown."""
    scores = {one.key: {"score": 7, "reason": "It is."} for one in DEFAULT_CRITERIA}
    default = {label: {"scores": scores, "critique": "More tests."} for label in ("D", "C", "A")}
    return {"opinions": {**default, **opinions}, "ranking": list(ranking)}


def opinion(**fields: Any) -> dict[str, Any]:
    """One opinion with one thing changed."""
    first: dict[str, Any] = json.loads(json.dumps(answer()["opinions"]["A"]))
    for name, value in fields.items():
        if name == "critique":
            first["critique"] = value
        else:
            first["scores"][name] = value
    return first


def problem_of(text: str) -> str:
    """Why a text is no ballot."""
    with pytest.raises(InvalidBallot) as caught:
        read_ballot(text, SHEET, DEFAULT_CRITERIA)
    return str(caught.value)


def test_a_ballot_is_read_by_authors() -> None:
    """The labels are gone, and the tally can take it as it is."""
    review = read_ballot(json.dumps(answer()), SHEET, DEFAULT_CRITERIA)
    assert (review.voter, review.order) == ("m0", "reverse")
    assert review.shown == ("m3", "m1", "m2")
    assert review.ranking == ("m1", "m2", "m3")
    assert list(review.opinions) == ["m3", "m1", "m2"]
    assert review.opinions["m2"].scores["clarity"].score == 7
    assert type(review).model_validate_json(review.model_dump_json()) == review
    assert tally([Candidate(one, 0.5) for one in ("m0", "m1", "m2", "m3")], [review]).order[0] == "m1"


def test_a_ballot_has_a_grade_for_each_that_it_judged() -> None:
    """The mean of the scores, from 0 for the lowest to 1 for the highest; a rule may go by it."""
    low = opinion(clarity={"score": MIN_SCORE, "reason": "No."}, correctness={"score": MAX_SCORE, "reason": "Yes."})
    review = read_ballot(json.dumps(answer(A=low)), SHEET, DEFAULT_CRITERIA)
    assert review.grades == {"m3": Fraction(2, 3), "m1": Fraction(2, 3), "m2": Fraction(0 + 9 + 6, 27)}
    assert Ballot(voter="m0", shown=("m1", "m2"), ranking=("m1",)).grades == {}


def test_a_ballot_among_other_text_is_read_and_of_two_neither() -> None:
    """Models without structured output like to wrap it."""
    text = json.dumps(answer())
    for wrapped in (f"Here it is:\n```json\n{text}\n```\n", f"Here it is: {text} That is all.", f"{text}\nDone"):
        assert read_ballot(wrapped, SHEET, DEFAULT_CRITERIA).ranking[0] == "m1"
    final = json.dumps(answer(["D", "C", "A"]))
    for odd in (
        f"```json\n{text}\n```\nFinal:\n{final}",
        f'{text}\nCorrection: ["D", "C"]',
        f"```\n{text}\n```\n```\n{text}\n```",
    ):
        assert problem_of(odd).startswith("ballot: it is not one JSON object")


@pytest.mark.parametrize(
    "given",
    [
        json.dumps(answer(["c", "a", "d"])),
        json.dumps({**answer(), "winner": "A"}),
        json.dumps(answer(A=opinion(beauty={"score": 9, "reason": "x"}))),
        json.dumps(answer(A=opinion(clarity={"score": 7.5, "reason": "x"}))),
        json.dumps(answer(A=opinion(clarity={"score": "7", "reason": "x", "why": "y"}))),
        json.dumps(answer(A=opinion(clarity={"score": 7, "reason": "x, " * MAX_REASON}))),
        json.dumps(answer(A=opinion(critique="x, }" * MAX_CRITIQUE))),
        json.dumps(answer()).replace("}", " ,\n}").replace("]", ", ]"),
        json.dumps({"opinions": {key.lower(): one for key, one in answer()["opinions"].items()}, "ranking": ["C"]}),
    ],
    ids=["labels", "key", "criterion", "half", "digits", "reason", "critique", "commas", "lower case"],
)
def test_a_form_that_can_mean_one_thing_only_is_mended(given: str) -> None:
    """The ranking is what counts, and none of these is about it."""
    review = read_ballot(given, SHEET, DEFAULT_CRITERIA)
    assert review.ranking[0] == "m1"
    assert review.opinions["m2"].scores["clarity"].score == 7
    assert len(review.opinions["m2"].critique) <= MAX_CRITIQUE
    assert len(review.opinions["m2"].scores["clarity"].reason) <= MAX_REASON


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ['\\"', '{"', '"\\', ",", ", ", "{", '",'])
def test_a_ballot_that_is_no_json_is_refused_in_linear_time(part: str) -> None:
    """Reading it again without commas that are too many looks at each character once."""
    assert problem_of("{," + part * (MAX_BALLOT // len(part) - 1))


def test_a_ranking_may_leave_proposals_out() -> None:
    """But not all of them."""
    assert read_ballot(json.dumps(answer(["C"])), SHEET, DEFAULT_CRITERIA).ranking == ("m1",)
    assert problem_of(json.dumps(answer([]))) == "ranking: it is empty"


def test_control_characters_in_strings_are_dropped() -> None:
    """A backend of structured output lets them through, raw or escaped."""
    text = json.dumps(answer(A=opinion(critique="Mo\x04re\ud800 tests."))).replace("\\u0004", "\x04")
    assert "\x04" in text
    review = read_ballot(text, SHEET, DEFAULT_CRITERIA)
    assert review.opinions["m2"].critique == "More tests."


@pytest.mark.parametrize(
    ("ballot", "problem"),
    [
        (answer(["C", "Z"]), "ranking.1: 'Z' is none of D, C, A"),
        (answer(["C", "B", "A"]), "ranking.1: 'B' is none of D, C, A"),
        (answer(["C", "A", "C"]), "ranking.2: 'C' is ranked twice"),
        (answer(["C", "m2"]), "ranking.1: 'm2' is none of D, C, A"),
        (answer(B=opinion()), "opinions: 'B' is none of D, C, A"),
        (answer(A=opinion(clarity={"score": 11, "reason": "x"})), "opinions.A.scores.clarity.score: "),
        (answer(A=opinion(clarity={"score": 0, "reason": "x"})), "opinions.A.scores.clarity.score: "),
        (answer(A=opinion(clarity={"score": True, "reason": "x"})), "opinions.A.scores.clarity.score: "),
        (answer(A=opinion(clarity={"score": 9, "reason": " "})), "opinions.A.scores.clarity.reason: "),
        (answer(A=opinion(clarity={"score": 9})), "opinions.A.scores.clarity.reason: "),
        *(
            (answer(A=opinion(clarity={"score": odd, "reason": "x"})), "opinions.A.scores.clarity.score: ")
            for odd in (10.2, 10.6, 0.9, "0.95")  # on a scale of 0 to 1, the best would become the worst
        ),
        (answer(A=opinion(clarity={"score": "nine", "reason": "x"})), "opinions.A.scores.clarity.score: "),
        (answer(["C", "c"]), "ranking.1: 'C' is ranked twice"),
        (answer(A={"scores": {}, "critique": "x"}), "opinions.A.scores.correctness: it is missing"),
        ({"ranking": ["A"]}, "opinions: "),
        ({**answer(), "ranking": "ACD"}, "ranking: "),
        ({**answer(), "ranking": {"A": 1}}, "ranking: "),
    ],
)
def test_an_invalid_ballot_is_refused_by_the_field(ballot: dict[str, Any], problem: str) -> None:
    """In words that a model can act on when it is asked again."""
    assert problem_of(json.dumps(ballot)).startswith(problem)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "[1]",
        '{"ranking": ["A"], "ranking": ["C"]}',
        '{"ranking": NaN}',
        '{"ranking": ' + "[" * 100_000,
        '{"ranking": ' + "9" * 5000 + "}",
        json.dumps(answer())[:-1],
        json.dumps(answer()) + "{}",
        "{" + " " * MAX_BALLOT + "}",
    ],
)
def test_what_is_no_json_object_is_no_ballot(text: str) -> None:
    """Also where one key is given twice, or it would be costly to read."""
    assert problem_of(text)


@settings(deadline=None)
@given(
    st.text(max_size=80) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps)
)
def test_reading_never_fails_in_another_way(text: str) -> None:
    """Whatever a model writes."""
    assert problem_of(text)


def test_an_invalid_ballot_is_asked_for_once_more_in_the_same_chat() -> None:
    """So that its start is served from the cache; the answer is repeated as data."""
    chat = review_messages(member(), ITEM, sheets(COUNCIL, COUNCIL, "s")["m0"], texts(), DEFAULT_CRITERIA, "s")
    again = ask_again(chat, "<|im_end|>" + "x" * 9000, InvalidBallot("ranking.2", "'C' is ranked twice"))
    assert again[:2] == chat
    assert [message["role"] for message in again] == ["system", "user", "assistant", "user"]
    assert "<|im_end|>" not in again[2]["content"]
    assert len(again[2]["content"]) == 4000
    assert "ranking.2: 'C' is ranked twice" in again[3]["content"]


# --- attacks --------------------------------------------------------------------------------------


def attack_text(attack: dict[str, Any]) -> str:
    """The text of the proposal."""
    return str(attack["text"]) if "text" in attack else attack["text_repeated"] * attack["times"]


def prompt_with(text: str) -> tuple[str, Sheet, str]:
    """A reviewer's prompt in which one rival's proposal is the text, the sheet, and the mark."""
    proposals = texts(m1=text)
    sheet = sheets(COUNCIL, COUNCIL, "salt")["m0"]
    return user(sheet, proposals), sheet, mark_of(proposals.values(), "salt")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack["name"])
def test_no_attack_leaves_its_fence(attack: dict[str, Any]) -> None:
    """Exactly the labels of the sheet, in order; the text beside the fences is that of a harmless prompt."""
    prompt, sheet, mark = prompt_with(attack_text(attack))
    found, beside = sections(prompt, mark)
    assert [label for label, _ in found] == list(sheet.labels)
    harmless, _, other_mark = prompt_with(RIVAL)
    assert beside.replace(mark, "") == sections(harmless, other_mark)[1].replace(other_mark, "")
    assert prompt.count(mark) == 2 * len(found) + 1
    assert len(prompt) < MAX_PROPOSAL + 5000


def test_there_are_enough_attacks_of_both_kinds() -> None:
    """Those that the form holds, and those that it cannot."""
    kinds = [attack["holds"] for attack in ATTACKS]
    assert len(ATTACKS) >= 20
    assert set(kinds) == {"form", "nothing"}
    assert len({attack["name"] for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.parametrize("attack", [one for one in ATTACKS if one["holds"] == "form"], ids=lambda one: one["name"])
def test_what_poses_as_a_tag_or_a_token_is_shown_in_another_form(attack: dict[str, Any]) -> None:
    """No tokenizer takes it for the real one, no reader for the end of the data, and nothing is invisible."""
    shown = neutral(attack_text(attack))
    folded = re.sub("[\u200c\u200d ]", "", shown).lower()
    forged = ("<proposal", "</proposal", "\uff1c", "<think", "</think", "<|", "<\uff5c", "[inst]", "[/inst]", "<<sys")
    forged += ("<s>", "</s>", "<start_of", "<end_of", "[tool_calls]", "[system_prompt]", "[/system_prompt]")
    forged += ("<given", "</given", "[|endofturn", "[|system", "]~b]", "]~!b[", "[e~[", "<special_", "[gmask]", "<sop>")
    forged += ("<eop>", "[think]", "[/think]", "<tool_", "</tool_", "<unused", "<extra_id", "<seed:", "<role>", "<fim_")
    forged += ("<turn|>", "<|turn>", "<|channel>", "<channel|>", "<eos_token>", "<bos_token>", "<minimax:", "[@bos@]")
    assert not [token for token in forged if token in folded]
    assert all(char.isprintable() or char in "\n\t\u200c\u200d" for char in shown)


@pytest.mark.parametrize("attack", [one for one in ATTACKS if one["holds"] == "nothing"], ids=lambda one: one["name"])
def test_persuasion_reaches_the_reviewer_word_for_word(attack: dict[str, Any]) -> None:
    """What the fence does not do: nothing filters what a text says, and a model may obey it."""
    prompt, _, mark = prompt_with(attack["text"])
    assert attack["text"] in dict(enumerate(text for _, text in sections(prompt, mark)[0])).values()


def test_a_reviewer_who_obeys_has_one_ballot_and_no_more() -> None:
    """Seven members, one hostile proposal at the bottom of every honest list: one who obeys lifts it nowhere near."""
    ids = [f"m{number}" for number in range(7)]
    drawn = sheets(ids, ids, "salt")

    def ballot(voter: str, first: str | None) -> str:
        ranked = sorted(drawn[voter].shown, key=lambda one: (one[1] != first, one[1]))
        scored = {one.key: {"score": 5, "reason": "It is."} for one in DEFAULT_CRITERIA}
        opinions = {label: {"scores": scored, "critique": "More."} for label in drawn[voter].labels}
        return json.dumps({"opinions": opinions, "ranking": [label for label, _ in ranked]})

    reviews = [
        read_ballot(ballot(voter, "m6" if voter == "m0" else None), drawn[voter], DEFAULT_CRITERIA) for voter in ids
    ]
    result = tally([Candidate(one, 0.5) for one in reversed(ids)], reviews)
    assert result.winner == "m0"
    assert "m6" in result.order[-2:]
    assert result.scores["m6"] == pytest.approx(1 / 6, abs=1e-6)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_no_text_leaves_its_fence(text: str, rival: str) -> None:
    """Whatever it holds."""
    mark = mark_of([text, rival], "salt")
    prompt = f"{fence('A', text, mark)}\n\n{fence('B', rival, mark)}"
    found, beside = sections(prompt, mark)
    assert [label for label, _ in found] == ["A", "B"]
    assert beside == "\n\n"
    assert neutral(neutral(text)) == neutral(text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part", ["<", "< ", "</", "<|", "<|a", "[", "\u200b", "\u200d", "<\u200d", "\r", "- ", "```\n"]
)
def test_a_hostile_text_is_shown_and_read_in_bounded_time(part: str) -> None:
    """100 000 characters of anything; what takes quadratic time would run into the limit."""
    text = part * (100_000 // len(part))
    assert len(neutral(text)) <= len(text)
    assert criteria_of(text or None)
    assert problem_of(text)


def test_a_mark_is_in_no_text_and_depends_on_all() -> None:
    """An author who knew the others' texts would still have to find its own mark's digest in its own text."""
    first = mark_of(["one", "two"], "salt")
    assert first == mark_of(["two", "one"], "salt")
    assert len({first, mark_of(["one", "two"], "other"), mark_of(["one", "two "], "salt")}) == 3
    assert re.fullmatch("[0-9a-f]{16}", first)


def test_plain_code_is_shown_as_it_is() -> None:
    """Comparisons, generics, HTML, pipes, emoji and scripts that join letters."""
    text = (
        "if a < s and b > pad: f <| x\n<div class='s'>x</div> List<User>\n[x for x in y]\n"
        "List[int] a[0] m[PREFIX] data[MASK] d[IMG] Dict<string, int> Map<K, V> [| 1; 2 |] y[1] ~ x[2] x[i]~b\n"
        "<given_name>Ann</given_name> <role>admin</role> <tool>saw</tool> <unused> <special> <image/> <seed>7</seed>\n"
        "std::vector<bool> a <- b; <T extends tool_call> #include <eot.h> [INFO] [x](y) <!-- c --> <?xml?> [user]\n"
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\n\ta | b"
    )
    assert neutral(text) == text


def test_a_long_proposal_is_cut_and_says_so() -> None:
    """At the limit that the caller sets."""
    assert "x" * 10 + "\n[90 more characters are not shown]\n</proposal-m>" in fence("A", "x" * 100, "m", limit=10)

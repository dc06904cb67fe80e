"""The sets of questions in docs/examples: they load, they are what they say, and their checks know right from wrong."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.council.evaluation.questions import Exact, Numeric, Predicate, Question, Regex, read_questions
from tasks.evaluate.question_files import QuestionFile
from tests.conftest import cases

EXAMPLES = Path("docs/examples")
CODE_CHECKS = EXAMPLES / "code_checks.py"
ANSWERS: dict[str, dict[str, list[str]]] = yaml.safe_load(Path(__file__).with_name("question_answers.yaml").read_text())
KINDS = {
    "questions-200": {"choice": 100, "number": 40, "order": 20, "code": 20, "open": 20},
    "questions-layout": {"choice": 24, "number": 10, "order": 6},
    "questions-20": {"choice": 10, "number": 5, "order": 3, "code": 1, "open": 1},
}


def questions(name: str) -> list[Question]:
    """The questions of a set, as the project reads them."""
    return list(read_questions((EXAMPLES / f"{name}.jsonl").read_text().splitlines(), name).values())


ALL = {one.id: one for one in questions("questions-200")}
OPEN = [one for one in ALL.values() if one.form is None]
CLOSED = [one for one in (*ALL.values(), *questions("questions-layout")) if one.form is not None]


def loaded() -> dict[str, Callable[[str, dict[str, Any]], object]]:
    """What the file of predicates defines, imported as the process of checks does it."""
    spec = importlib.util.spec_from_file_location("code_checks_of_the_examples", CODE_CHECKS)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


PREDICATES = loaded()


def passes(question: Question, text: str) -> bool:
    """Whether a text passes the check of an open question."""
    if not isinstance(question.check, Predicate):
        return question.is_right(text)
    verdict = PREDICATES[question.check.name](text, question.model_dump(mode="json"))
    assert isinstance(verdict, bool)
    return verdict


# --- the sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_set_has_so_many_of_each_kind(name: str) -> None:
    """An id begins with its kind, and the check is of that kind."""
    kinds = {"choice": Exact, "number": Numeric, "order": Exact, "code": Predicate, "open": Regex}
    for one in questions(name):
        assert isinstance(one.check, kinds[one.id.split("-")[0]]), one.id
    assert Counter(one.id.split("-")[0] for one in questions(name)) == KINDS[name]


async def test_the_predicates_of_a_set_are_found() -> None:
    """As `conclave evaluate` looks for them."""
    for name in ("questions-200", "questions-20"):
        await QuestionFile(EXAMPLES / f"{name}.jsonl").try_checks()


def test_no_question_is_there_twice() -> None:
    """Not in the 200, and none of them in what layouts are tuned with; neither by id nor by task."""
    both = [*questions("questions-200"), *questions("questions-layout")]
    assert len({one.id for one in both}) == len({" ".join(one.task.casefold().split()) for one in both}) == 240


def test_the_quick_look_is_a_part_of_the_whole() -> None:
    """So that its answers can be compared with those to all."""
    assert all(ALL[one.id] == one for one in questions("questions-20"))


@pytest.mark.parametrize("name", KINDS)
def test_no_place_has_more_than_its_share_of_right_options(name: str) -> None:
    """Whoever always takes the first option, or the last one, is right about as often as by chance."""
    chance, hits = Fraction(0), Counter[int]()
    choices = [one.check for one in questions(name) if isinstance(one.check, Exact) and one.check.options]
    for check in choices:
        assert check.options is not None
        assert 3 <= len(check.options) <= 5
        place = check.options.index(check.answer)
        hits.update([place, place - len(check.options)])
        chance += Fraction(1, len(check.options))
    for place in (0, 1, 2, -1):
        assert abs(hits[place] - chance) <= max(2, len(choices) // 20), (place, hits, float(chance))


def test_a_closed_question_takes_its_own_answer_only() -> None:
    """As it may be written; no other option, no other number, nothing, and not the question itself."""
    for question in CLOSED:
        check_answers(question)


def check_answers(question: Question) -> None:
    """Hold one question to that."""
    check = question.check
    assert isinstance(check, Exact | Numeric)
    for text in (f"ANSWER: {check.answer}", f"Some words.\n\n**Answer:** {check.answer}"):
        assert question.is_right(text), (question.id, text)
    others = [str(check.answer + 1), str(-check.answer - 1), ""] if isinstance(check, Numeric) else ["", "none of them"]
    if isinstance(check, Exact):
        others += [option for option in check.options or ["ABCD", "abc"] if option != check.answer]
    for text in (*(f"ANSWER: {other}" for other in others), question.task, "I do not know."):
        assert not question.is_right(text), (question.id, text)


def test_what_programs_print_is_right() -> None:
    """The programs in the tasks are ours, so they can be run."""
    for question in CLOSED:
        for code in re.findall(r"```python\n(.*?)\n```", question.task, re.DOTALL):
            printed: list[str] = []
            scope = {"print": lambda *values, printed=printed: printed.append(" ".join(map(str, values)))}
            exec(code, scope)
            assert isinstance(question.check, Exact)
            assert printed == [question.check.answer], question.id


# --- the checks of open questions -----------------------------------------------------------------


def forms(question: Question, answer: str) -> list[str]:
    """The ways in which models write an answer: code bare, in a fence, or in one that is never closed."""
    if not isinstance(question.check, Predicate):
        return [answer, f"**{answer}**", f"Sure!\n\n{answer}\n"]
    return [
        answer,
        f"```python\n{answer}\n```",
        f"Here it is:\n\n```\n{answer}\n```\n\nIt works, since it's right.",
        f"```python\n{answer}\n",
    ]


def test_each_open_question_has_answers() -> None:
    """Right ones and wrong ones."""
    assert set(ANSWERS) == {one.id for one in OPEN}
    assert all(one["right"] and one["wrong"] for one in ANSWERS.values())


@pytest.mark.parametrize("question", OPEN, ids=lambda one: one.id)
def test_a_right_answer_passes(question: Question) -> None:
    """However it is wrapped."""
    for answer in ANSWERS[question.id]["right"]:
        for text in forms(question, answer):
            assert passes(question, text), text


@pytest.mark.parametrize("question", OPEN, ids=lambda one: one.id)
def test_a_wrong_answer_fails(question: Question) -> None:
    """Also nothing, nonsense, the question itself, its rubric, and an answer to another question."""
    others = [one["right"][0] for name, one in ANSWERS.items() if name != question.id and name.startswith("code-")]
    nothing = ["", " \n", "I do not know.", "lorem ipsum dolor sit amet", "yes", "42", "```python\n```", "```"]
    said = [question.task, question.rubric or "", *question.requirements]
    for answer in (*ANSWERS[question.id]["wrong"], *others, *nothing, *said):
        for text in forms(question, answer):
            assert not passes(question, text), text


HARM = "open({marker!r}, 'w').close()"
HOSTILE = (
    "{harm}",
    "__import__('pathlib').Path({marker!r}).touch()",
    "def {name}(a, b=[{harm}]):\n    return {harm}\n\n{name}(1, 2)",
    "@{harm}\nclass Point:\n    {harm}",
    "import os\nos.system('touch {marker}')\nos._exit(0)",
    "while True:\n    pass",
    "raise SystemExit",
)
MISSHAPEN = (
    *("def", "def add(a, b", "return return", "x = \0", "\ud800", "(" * 9000, "[" * 19_000 + "]", "-" * 19_000 + "1"),
    *("a" + ".a" * 9000, "1" + "+1" * 9000, "not " * 4000 + "1", "9" * 19_000, "x" * 1_000_000, "```\n" * 200_000),
    *("```\n" * 4900, "``` " * 4900, "```x\n" + " " * 19_000, "``` " * 30_000),
    *("breakfast lunch " * 100_000, "red green " * 100_000, "\n" * 1_000_000),
    "def add(a, b):\n" + "".join(f"{' ' * depth}if a:\n" for depth in range(1, 150)),
)


@pytest.mark.parametrize("question", OPEN, ids=lambda one: one.id)
def test_nothing_in_a_text_is_run(question: Question, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that would leave a file, end the process or never end: it is read, and that is all."""
    marker = tmp_path / "ran"
    for name in ("exec", "eval"):
        monkeypatch.setattr(builtins, name, _forbidden)
    for pattern in HOSTILE:
        harm = HARM.format(marker=str(marker))
        text = pattern.format(harm=harm, marker=str(marker), name=question.id.removeprefix("code-").replace("-", "_"))
        verdicts = [passes(question, form) for form in forms(question, text)]
        assert not any(verdicts), text
    for answer in ANSWERS[question.id]["right"][:1] if isinstance(question.check, Predicate) else ():
        assert passes(question, f"{answer}\n\n{HARM.format(marker=str(marker))}")
    assert not marker.exists()


def _forbidden(*_arguments: object, **_keywords: object) -> None:
    raise AssertionError("a check runs code")


@pytest.mark.parametrize("question", OPEN, ids=lambda one: one.id)
def test_misshapen_and_huge_texts_fail(question: Question) -> None:
    """And raise nothing: no syntax error, nothing too deep, no pattern that takes for ever."""
    for text in MISSHAPEN:
        assert not passes(question, text), text[:60]
        assert not passes(question, f"```python\n{text}\n```"), text[:60]


CODE = [answer for name, one in ANSWERS.items() if name.startswith("code-") for answer in one["right"] + one["wrong"]]
WORDS = sorted(
    {word for answer in CODE for word in re.findall(r"\w+|\S", answer)} | {"*", "/", ", /", "**", "()", "=0"}
)
EDITS = st.lists(st.tuples(st.integers(0, 80), st.integers(0, 2), st.sampled_from(WORDS)), min_size=1, max_size=4)


@settings(max_examples=cases(300))
@given(answer=st.sampled_from(CODE), edits=EDITS)
def test_code_that_is_nearly_right_raises_nothing(answer: str, edits: list[tuple[int, int, str]]) -> None:
    """Words of code are replaced, left out or put in: each predicate says yes or no, whatever is left."""
    parts = re.findall(r"\w+|\s+|\S", answer)
    for place, length, word in edits:
        parts[place : place + length] = [word, " "][: 2 - length // 2]
    for question in OPEN:
        passes(question, "".join(parts))


def test_the_predicates_cannot_run_code() -> None:
    """They import a parser and name nothing that runs, opens or imports something."""
    tree = ast.parse(CODE_CHECKS.read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    for node in ast.walk(tree):
        imported |= {one.name for one in node.names} if isinstance(node, ast.Import) else set()
    assert imported == {"__future__", "ast", "re", "textwrap", "warnings", "collections.abc", "typing"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"exec", "eval", "compile", "open", "__import__", "globals", "vars", "setattr", "delattr"}


def test_each_predicate_is_asked_for() -> None:
    """By exactly one question."""
    asked = [one.check.name for one in OPEN if isinstance(one.check, Predicate)]
    public = [
        name for name, value in PREDICATES.items() if getattr(value, "__module__", "").startswith("code_checks_of")
    ]
    assert sorted(asked) == sorted(name for name in public if not name.startswith("_"))


def test_a_line_of_a_set_is_plain_json() -> None:
    """One object a line, in characters that can be seen."""
    for name in KINDS:
        for line in (EXAMPLES / f"{name}.jsonl").read_text().splitlines():
            assert isinstance(json.loads(line), dict)
            assert line.isprintable(), line

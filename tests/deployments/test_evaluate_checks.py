"""Checks in a process of their own: whatever a pattern or a user's function does, it ends, and is told of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from tasks.council.evaluation.questions import Question, Verdict, read_questions
from tasks.council.exceptions import InvalidRequest
from tasks.evaluate import checker as evaluation_checker
from tasks.evaluate import question_files
from tasks.evaluate.checker import Checker
from tasks.evaluate.question_files import QuestionFile

pytestmark = pytest.mark.servers  # programs of its own

CHECKS = """
import os, subprocess, sys, time
from neighbour import WORD

def has_word(text, question):
    print("printed")
    os.write(1, b"written")
    return WORD in text and question["id"] == "line-1" and question["context"] == {"of": "the user"}

def raises(text, question):
    raise KeyError(text)

def leaves(text, question):
    sys.exit(0)

def dies(text, question):
    os._exit(0)

def reads(text, question):
    return sys.stdin.read() == "" and input() == ""

def counts(text, question):
    return len(text)

async def later(text, question):
    return True

def hangs(text, question):
    subprocess.Popen(["sleep", "987654"]).wait()

NOTHING = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with functions of a user, who has a module beside them."""
    (tmp_path / "checks.py").write_text(CHECKS)
    (tmp_path / "neighbour.py").write_text("WORD = 'word'\n")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    return tmp_path


@pytest_asyncio.fixture
async def checker(folder: Path) -> AsyncGenerator[Checker, None]:
    """Asks a process that begins in that folder, and is gone afterwards."""
    async with Checker(folder) as made:
        yield made


def line(**check: Any) -> str:
    """A question of one line."""
    return json.dumps({"task": "a", "context": {"of": "the user"}, "check": check})


def asked(**check: Any) -> Question:
    """The question of that line."""
    return read_questions([line(**check)])[1]


def predicate(name: str) -> Question:
    """A question that a function of the folder checks."""
    return asked(type="predicate", function=f"checks.py:{name}")


async def test_a_function_is_told_the_text_and_the_question(checker: Checker) -> None:
    """What it prints disturbs nothing; it may import what lies beside it."""
    texts = ["a word", "nothing", "\u00fc word\nof lines \U0001f600", "word " * 100_000]
    verdicts = [await checker.verdict(predicate("has_word"), text) for text in texts]
    assert verdicts == [Verdict(True), Verdict(False), Verdict(True), Verdict(True)]


async def test_the_other_checks_are_made_there_too(checker: Checker) -> None:
    """With the same verdicts as in this process."""
    for check, text in (
        ({"type": "regex", "pattern": "^b", "flags": "m"}, "a\nb"),
        ({"type": "numeric", "answer": 0.1, "tolerance": 0.01}, "ANSWER: 0.11"),
        ({"type": "exact", "answer": "yes", "options": ["yes", "no"]}, "ANSWER: Yes"),
    ):
        assert await checker.verdict(asked(**check), text) == Verdict(True)
        assert await checker.verdict(asked(**check), "else") == Verdict(False)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("raises", "KeyError: 'a text'"),
        ("leaves", "SystemExit: 0"),
        ("dies", "the check ended its own process"),
        ("reads", "EOFError: EOF when reading a line"),
        ("counts", "TypeError: checks.py:counts returned 6; True or False is wanted"),
        ("later", "TypeError: checks.py:later returned <coroutine object later at "),
    ],
)
async def test_a_function_that_fails_is_wrong_and_told_of(checker: Checker, name: str, problem: str) -> None:
    """And the next one is asked as if nothing had been."""
    verdict = await checker.verdict(predicate(name), "a text")
    assert not verdict.right
    assert (verdict.problem or "").startswith(problem)
    assert await checker.verdict(predicate("has_word"), "word") == Verdict(True)


@pytest.mark.parametrize(
    "endless",
    [{"type": "regex", "pattern": "(a+)+$"}, {"type": "predicate", "function": "checks.py:hangs"}],
    ids=["regex", "predicate"],
)
async def test_a_check_that_never_ends_is_ended(
    checker: Checker, monkeypatch: pytest.MonkeyPatch, endless: dict[str, Any]
) -> None:
    """With all that it has started."""
    with monkeypatch.context() as short:
        short.setattr(evaluation_checker, "CHECK_S", 1.0)
        verdict = await checker.verdict(asked(**endless), "a" * 60 + "b")
    assert verdict == Verdict(False, "the check took longer than 1 s")
    assert await checker.verdict(predicate("has_word"), "word") == Verdict(True)
    async with asyncio.timeout(30):
        while any(one.info["cmdline"] == ["sleep", "987654"] for one in psutil.process_iter(["cmdline"])):
            await asyncio.sleep(0.05)


async def test_a_check_that_runs_out_of_time_is_given_up_whatever_came_first(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once on a text it is that text's; from the second on no text of the question is right, in any order."""
    monkeypatch.setattr(evaluation_checker, "CHECK_S", 1.0)
    question, slow = asked(type="regex", pattern="(a+)+$"), ["a" * 60 + "b", "a" * 61 + "b"]
    for texts in ([*slow, "a"], ["a", *slow], [slow[0], "a", slow[1]]):
        found = await checker.verdicts(question, texts)
        assert found == dict.fromkeys(texts, Verdict(False, evaluation_checker.GIVEN_UP))
    assert (await checker.verdicts(question, [slow[0], "a"]))["a"] == Verdict(True)


async def test_each_file_has_the_modules_that_lie_beside_it(folder: Path, checker: Checker) -> None:
    """Also where they have the same names, and where they are imported by a call."""
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "checks.py").write_text("""
from helper import WANT

def right(text, question):
    import later
    return text == WANT == later.WANT
""")
        for module in ("helper", "later"):
            (folder / name / f"{module}.py").write_text(f"WANT = {name!r}")
    for name in ("a", "b", "a"):
        question = asked(type="predicate", function=f"{name}/checks.py:right")
        assert await checker.verdicts(question, ["a", "b"]) == {one: Verdict(one == name) for one in "ab"}


async def test_what_everybody_can_write_is_not_imported(folder: Path) -> None:
    """Neither the file itself nor what lies beside it, nor what a link brings in."""
    outside = folder.parent / "outside.py"
    outside.write_text("WORD = 'word'")
    async with Checker(folder, folder) as trusting:
        assert await trusting.verdict(predicate("has_word"), "word") == Verdict(True)
    (folder / "neighbour.py").chmod(0o666)
    async with Checker(folder, folder) as trusting:
        told = await trusting.verdict(predicate("has_word"), "word")
        assert not told.right and "neighbour.py can be written by everybody" in (told.problem or "")
    (folder / "neighbour.py").unlink()
    (folder / "neighbour.py").symlink_to(outside)
    async with Checker(folder, folder) as trusting:
        told = await trusting.verdict(predicate("has_word"), "word")
        assert not told.right and "outside.py does not lie in" in (told.problem or "")


async def test_no_process_is_left(folder: Path) -> None:
    """Once the checks are done."""
    before = set(psutil.Process().children())
    async with Checker(folder) as checker:
        await checker.verdict(predicate("has_word"), "word")
        assert len(set(psutil.Process().children()) - before) == 1
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("missing.py:f", "LookupError: there is no file "),
        ("broken.py:f", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("checks.py:f", "LookupError: checks.py has no function f"),
        ("checks.py:NOTHING", "LookupError: checks.py has no function NOTHING"),
    ],
)
async def test_a_function_that_cannot_be_called_is_named_with_its_line(
    folder: Path, function: str, problem: str
) -> None:
    """Before anything is asked; the first line that names it counts."""
    good, bad = line(type="predicate", function="checks.py:has_word"), line(type="predicate", function=function)
    (folder / "q.jsonl").write_text("\n".join([good, bad, good, bad]))
    with pytest.raises(InvalidRequest) as refused:
        await QuestionFile(folder / "q.jsonl").try_checks()
    assert str(refused.value).startswith(f"q.jsonl line 2: check.function: {function}: {problem}")


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "is no regular expression: missing ), unterminated subpattern at position 0"),
        ("a{99999999999}", "is no regular expression: the repetition number is too large"),
        ("(" * 4_000 + ")" * 4_000, "is no regular expression: "),
        ("[\x01-\U0010ffff]" * 1_000, "compiling it took longer than 0.5 s"),
    ],
    ids=["unterminated", "large", "deep", "slow"],
)
async def test_a_pattern_that_does_not_compile_is_named_with_its_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, problem: str
) -> None:
    """Before anything is asked; the first line that has it counts."""
    monkeypatch.setattr(evaluation_checker, "CHECK_S", 0.5)
    good, bad = line(type="regex", pattern="a"), line(type="regex", pattern=pattern, flags="i")
    (folder / "q.jsonl").write_text("\n".join([good, bad, good, bad]))
    with pytest.raises(InvalidRequest) as refused:
        await QuestionFile(folder / "q.jsonl").try_checks()
    assert str(refused.value).startswith(f"q.jsonl line 2: check.pattern: {problem}")


async def test_all_patterns_together_have_a_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take less than its own."""
    monkeypatch.setattr(question_files, "TRY_S", 1.0)
    slow = [line(type="regex", pattern="[\x01-\U0010ffff]" * 20 + str(number), flags="i") for number in range(50)]
    (folder / "q.jsonl").write_text("\n".join(slow))
    with pytest.raises(InvalidRequest, match=r"check.pattern: it and those before it could not be tried within 1 s"):
        await QuestionFile(folder / "q.jsonl").try_checks()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Absent, or no text; a byte order mark does not matter."""
    (tmp_path / "image.jsonl").write_bytes(b"\xff\xd8")
    (tmp_path / "marked.jsonl").write_text("\ufeff" + line(type="regex", pattern="a"), encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"questions: .*absent.jsonl cannot be read: No such file"):
        QuestionFile(tmp_path / "absent.jsonl")
    with pytest.raises(InvalidRequest, match=r"questions: .*image.jsonl is no UTF-8 text"):
        QuestionFile(tmp_path / "image.jsonl")
    assert len(QuestionFile(tmp_path / "marked.jsonl").items) == 1


async def test_the_example_can_be_asked() -> None:
    """All four kinds of checks are in it, and its functions tell right from wrong."""
    example = QuestionFile(Path("docs/examples/questions.jsonl"))
    await example.try_checks()
    questions = {one.id: one for one in example.by_line.values()}
    assert {one.check.type for one in questions.values()} == {"exact", "numeric", "regex", "predicate"}
    code = "```python\ndef fibonacci(n: int) -> list[int]:\n    return []\n```"
    told = '```json\n{"name": "a", "version": "1", "dependencies": {}}\n```'
    async with Checker(example.path.parent) as checker:
        for name, right, wrong in (("fibonacci", code, code.replace(": int", "")), ("json", told, "```\n[]\n```")):
            assert await checker.verdict(questions[name], right) == Verdict(True)
            assert await checker.verdict(questions[name], wrong) == Verdict(False)

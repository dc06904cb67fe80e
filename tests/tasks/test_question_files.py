"""Files of questions: whatever a name leads to is a regular file of bounded size in the right folder, or is refused."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import string
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks import files
from tasks.council.evaluation.questions import MAX_LINE, Question, Verdict, read_questions
from tasks.council.exceptions import InvalidRequest
from tasks.evaluate import checker as evaluation_checker
from tasks.evaluate import question_files
from tasks.evaluate.checker import Checker
from tasks.evaluate.question_files import FOLDER, QuestionFile, handed_over, questions_named
from tests.conftest import cases

WIDE = "[\x01-\U0010ffff]"
"""Whose other cases are looked for one by one: 30 ms each."""
LINE = json.dumps({"task": "a", "check": {"type": "regex", "pattern": "a"}}) + "\n"
CHECKS = """
import os
from pathlib import Path

Path(__file__).with_name("ran").touch()

def environment(text, question):
    return set(os.environ) == set(text.split())

def takes(text, question):
    return len(bytearray(int(text))) > 0

def spins(text, question):
    while True:
        pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the operator named, with a file of questions in it, beside one with another."""
    folder = tmp_path / "named"
    (folder / "deeper").mkdir(parents=True)
    for path in (folder / "q.jsonl", folder / "deeper" / "q.jsonl", tmp_path / "outside.jsonl"):
        path.write_text(LINE)
    (folder / "leaves.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (folder / "stays.jsonl").symlink_to("deeper/q.jsonl")
    (folder / "up").symlink_to(tmp_path)
    monkeypatch.setenv(FOLDER, str(folder))
    return folder


async def test_a_parameter_names_what_lies_in_the_operators_folder(folder: Path) -> None:
    """By its path in it or by its whole path; a link may lead to another file there."""
    for name in ("q.jsonl", "deeper/q.jsonl", "./q.jsonl", "stays.jsonl", str(folder / "q.jsonl")):
        assert len((await questions_named(name)).items) == 1, name


async def test_a_parameter_names_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside, by `..`, by a link that leaves it; and without a folder nothing at all."""
    outside = str(folder.parent / "outside.jsonl")
    for name in (outside, "../outside.jsonl", "deeper/../q.jsonl", "leaves.jsonl", "up/outside.jsonl", "/etc/passwd"):
        with pytest.raises(InvalidRequest, match=r"^questions: .* does not lie in the folder of CONCLAVE_EVALUATIONS"):
            await questions_named(name)
    for value in ("", None):
        monkeypatch.setenv(FOLDER, value) if value is not None else monkeypatch.delenv(FOLDER)
        with pytest.raises(InvalidRequest, match=r"^questions: .* set CONCLAVE_EVALUATIONS there to a folder"):
            await questions_named("q.jsonl")


async def test_a_user_may_name_any_file_of_theirs_in_the_same_process(folder: Path) -> None:
    """What was handed over is taken for its own path only, in that block only."""
    own = QuestionFile(folder.parent / "outside.jsonl")
    with handed_over(own):
        assert await questions_named(str(own.path)) is own
        with pytest.raises(InvalidRequest):
            await questions_named(str(folder.parent / "another.jsonl"))
    with pytest.raises(InvalidRequest):
        await questions_named(str(own.path))


NAMES = st.text(alphabet=string.ascii_letters + "./~\0\n\\é", max_size=40)
PARTS = st.lists(st.sampled_from(["..", ".", "", "up", "named", "deeper", "q.jsonl", "outside.jsonl", "~"]), max_size=6)


@settings(max_examples=cases(500), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.one_of(NAMES, PARTS.map("/".join), PARTS.map(lambda parts: "/" + "/".join(parts))))
def test_whatever_is_named_lies_in_the_folder_or_is_refused(folder: Path, name: str) -> None:
    """No other error, and never a file outside."""
    try:
        found = asyncio.run(questions_named(name))
    except InvalidRequest as error:
        assert str(error).startswith(("questions: ", "q.jsonl"))
    else:
        assert found.path.resolve().is_relative_to(folder.resolve())


def _special(folder: Path, kind: str) -> Path:
    """A file that is none, by its kind."""
    path = folder / kind.replace(" ", "-")
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "a directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a directory", "a device"])
async def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """Whoever names it: it is not even opened, since a FIFO waits for a writer and a device never ends."""
    path = _special(tmp_path, kind)
    async with asyncio.timeout(10):
        with pytest.raises(InvalidRequest, match=f"^questions: .* cannot be read: it is {kind} and no regular file"):
            await asyncio.to_thread(QuestionFile, path)


def test_one_that_is_put_in_its_place_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the opening."""
    monkeypatch.setattr(files, "require_regular", lambda _path: None)
    with pytest.raises(OSError, match="it is a FIFO"):
        files.read_regular(_special(tmp_path, "a FIFO"), 10)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    """A gigabyte of nothing; and one that grows while it is read."""
    with (tmp_path / "large.jsonl").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InvalidRequest, match=r"cannot be read: it is larger than 67,108,864 bytes"):
        QuestionFile(tmp_path / "large.jsonl")
    with pytest.raises(OSError, match="larger than 3 bytes"):
        files.read_regular(Path("/proc/self/status"), 3)  # which says that it has none


def test_lines_and_questions_are_bounded() -> None:
    """The first one too long or too many is named, and no more is read."""
    read: list[int] = []

    def endless() -> object:
        while True:
            read.append(len(read))
            yield LINE

    with pytest.raises(InvalidRequest, match=r"q line 2: is longer than 4,000,000 characters"):
        read_questions([LINE, "x" * (MAX_LINE + 1)], "q")
    with pytest.raises(InvalidRequest, match="more than 10000 questions"):
        read_questions(endless(), "q")  # type: ignore[arg-type]
    assert len(read) == 10_001


@pytest.mark.parametrize("pattern", ["(?:(?:(?:a?){60000}){60000}){60000}", WIDE * 1000, "("])
def test_a_pattern_is_not_tried_where_nobody_could_end_it(pattern: str) -> None:
    """It may be searched for without end, in an empty text, too, or compiled for minutes, the interpreter held."""
    question = json.dumps({"task": "a", "check": {"type": "regex", "pattern": pattern, "flags": "i"}})
    began = time.process_time()
    assert read_questions([question])[1].check.type == "regex"
    assert time.process_time() - began < 5


# --- functions ------------------------------------------------------------------------------------


def predicate(function: str) -> Question:
    """A question that a function checks."""
    return read_questions([json.dumps({"task": "a", "check": {"type": "predicate", "function": function}})])[1]


@pytest.fixture
def checks(folder: Path) -> Path:
    """Functions in the operator's folder, and beside it; each notes that it was imported."""
    for path in (folder / "checks.py", folder / "deeper" / "checks.py", folder.parent / "checks.py"):
        path.write_text(CHECKS)
    return folder


async def test_functions_outside_of_the_folder_are_not_run(checks: Path) -> None:
    """By `..`, by a whole path, by a link: named, and not imported."""
    (checks / "link.py").symlink_to(checks.parent / "checks.py")
    for file in ("../checks.py", str(checks.parent / "checks.py"), "link.py", "up/checks.py"):
        question = json.dumps({"task": "a", "check": {"type": "predicate", "function": f"{file}:spins"}})
        (checks / "p.jsonl").write_text(question + "\n")
        with pytest.raises(InvalidRequest, match=r"p.jsonl line 1: check.function: .* does not lie in .*named"):
            await (await questions_named("p.jsonl")).try_checks()
        verdict = await (await questions_named("p.jsonl")).checker().verdict(predicate(f"{file}:spins"), "a")
        assert "does not lie in" in (verdict.problem or "")
    assert not (checks.parent / "ran").exists()


@pytest.mark.parametrize("open_to_all", ["deeper", "deeper/checks.py", "."])
async def test_functions_that_everybody_may_write_are_not_run(checks: Path, open_to_all: str) -> None:
    """The file, its folder, or the operator's: who names it is not who wrote it."""
    (checks / open_to_all).chmod(0o777)
    async with Checker(checks, checks.resolve()) as checker:
        assert "can be written by everybody" in (
            await checker.unusable(predicate("deeper/checks.py:spins").check) or ""
        )
    assert not (checks / "deeper" / "ran").exists()


async def test_functions_in_the_folder_are_run(checks: Path) -> None:
    """As the operator meant."""
    question = json.dumps({"task": "a", "check": {"type": "predicate", "function": "deeper/checks.py:spins"}})
    (checks / "p.jsonl").write_text(question + "\n")
    await (await questions_named("p.jsonl")).try_checks()
    assert (checks / "deeper" / "ran").exists()


async def test_the_process_of_checks_gets_no_key(checks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but what a program needs to run, whatever the worker was given."""
    secrets = ("CONCLAVE_LLM_API_KEY", "VLLM_API_KEY", "PREFECT_API_AUTH_STRING", "NATS_URL", "RAY_AUTH_TOKEN", "OTHER")
    for name in (*secrets, "TZ"):
        monkeypatch.setenv(name, "UTC")
    monkeypatch.delenv("LC_CTYPE", raising=False)  # which Python may set by itself
    kept = {name for name in evaluation_checker.INHERITED if name in os.environ} | {"PYTHONPATH"}
    assert "TZ" in kept
    async with Checker(checks) as checker:
        for extra in ((), ("LC_CTYPE",)):
            verdict = await checker.verdict(predicate("checks.py:environment"), " ".join((*kept, *extra)))
            if verdict.right:
                break
    assert verdict == Verdict(True)


async def test_a_check_that_takes_too_much_memory_fails_by_itself(checks: Path) -> None:
    """And the next one is asked in the same process."""
    async with Checker(checks) as checker:
        assert (await checker.verdict(predicate("checks.py:takes"), str(1 << 20))).right
        told = await checker.verdict(predicate("checks.py:takes"), str(evaluation_checker.MEMORY * 2))
        assert (told.problem or "").startswith("MemoryError")
        assert (await checker.verdict(predicate("checks.py:takes"), "1")).right


async def test_a_slow_file_stops_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others on the loop go on while it is read, and it is given up after a while."""
    monkeypatch.setattr(question_files, "READ_S", 0.5)
    monkeypatch.setattr(question_files, "QuestionFile", lambda *_: time.sleep(2))
    turns = 0

    async def bystander() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    beside = asyncio.create_task(bystander())
    with pytest.raises(InvalidRequest, match=re.escape("q.jsonl could not be read within 0.5 s")):
        await questions_named("q.jsonl")
    beside.cancel()
    assert turns > 5

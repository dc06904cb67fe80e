"""Files of questions: which one may be named by whom, and what stands in it.

On the command line a file is named by its user, who may name any. A parameter of a flow run is written by whoever
reaches Prefect, and what it names is opened, and its functions run, with the worker's rights: so it has to lie in the
folder that the worker's operator named in CONCLAVE_EVALUATIONS, and its functions too.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any

from blocks.files import read_regular
from tasks.council.evaluation.questions import Predicate, Regex, read_questions
from tasks.council.exceptions import InvalidRequest
from tasks.evaluate.checker import Checker

FOLDER = "CONCLAVE_EVALUATIONS"
"""The variable of a worker that names the folder of the files that parameters may name."""
MAX_FILE = 64 * 1024 * 1024
"""Bytes of a file of questions."""
READ_S = 120.0
"""So long a file may take to be read."""
TRY_S = 300.0
"""So long all its functions and patterns may take to be imported and compiled."""

_handed: ContextVar[QuestionFile | None] = ContextVar("handed_questions", default=None)


class QuestionFile:
    """Questions as they stand in a file; a plain class, so that Prefect does not look through all of them."""

    def __init__(self, path: Path, below: Path | None = None) -> None:
        """`below` is the folder that its functions have to lie in; None where its user runs them.

        Raises InvalidRequest that names the line and the field.
        """
        self.path, self._below = path.absolute(), below
        try:
            content = read_regular(path, MAX_FILE)
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise InvalidRequest("questions", f"{path} cannot be read: {reason}") from error
        try:
            with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig") as lines:
                self.by_line = read_questions(lines, path.name)
        except UnicodeDecodeError as error:
            raise InvalidRequest("questions", f"{path} is no UTF-8 text: {error.reason}") from error

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """The agenda: the questions without their checks."""
        return [question.as_item() for question in self.by_line.values()]

    def checker(self) -> Checker:
        """What tells whether texts are right."""
        return Checker(self.path.parent, self._below)

    async def try_checks(self) -> None:
        """Import the user's functions and compile the patterns, in a process that can be ended.

        Raises InvalidRequest that names the first one that cannot be used, or at which time is up.
        """
        found = [(line, one.check) for line, one in self.by_line.items() if isinstance(one.check, Predicate | Regex)]
        first = {check: line for line, check in reversed(found)}
        end = asyncio.get_running_loop().time() + TRY_S
        async with self.checker() as checker:
            for check, line in sorted(first.items(), key=lambda one: one[1]):
                try:
                    async with asyncio.timeout_at(end):
                        problem = await checker.unusable(check)
                except TimeoutError:
                    problem = f"it and those before it could not be tried within {TRY_S:g} s"
                if problem:
                    field, named = _named(check)
                    raise InvalidRequest(f"{self.path.name} line {line}: {field}", f"{named}{problem}")


def _named(check: Predicate | Regex) -> tuple[str, str]:
    """The field of a check that may not be usable, and how a problem with it begins."""
    return ("check.function", f"{check.function}: ") if isinstance(check, Predicate) else ("check.pattern", "")


@contextmanager
def handed_over(questions: QuestionFile) -> Generator[None, None, None]:
    """Let a flow that is called in the block, in this process, take these questions for its parameter.

    No flow run that comes through Prefect is called so.
    """
    token = _handed.set(questions)
    try:
        yield
    finally:
        _handed.reset(token)


async def questions_named(name: str) -> QuestionFile:
    """The questions that were handed over, else those in the operator's folder. Raises InvalidRequest."""
    handed = _handed.get()
    if handed is not None and name == str(handed.path):
        return handed
    try:
        async with asyncio.timeout(READ_S):  # in a thread, as the loop is everybody's
            return await asyncio.to_thread(_in_folder, name, os.environ.get(FOLDER))
    except TimeoutError as error:
        raise InvalidRequest("questions", f"{name:.200} could not be read within {READ_S:g} s") from error


def _in_folder(name: str, folder: str | None) -> QuestionFile:
    """A file below the folder, wherever its symlinks lead."""
    if not folder:
        raise InvalidRequest(
            "questions",
            f"{name:.200}: a parameter may name no file on this worker: set {FOLDER} there to a folder, whose files it "
            "may name; or use `conclave evaluate`, which reads yours",
        )
    try:
        root = Path(folder).expanduser().resolve()
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidRequest("questions", f"{name[:200]!r} is no path of a file") from error
    if ".." in Path(name).parts or not path.is_relative_to(root):
        raise InvalidRequest("questions", f"{name:.200} does not lie in the folder of {FOLDER}, {root}")
    return QuestionFile(path, root)

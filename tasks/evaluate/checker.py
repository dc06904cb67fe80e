"""Checks of texts in a process of their own, which can be ended.

A pattern may take for ever to compile, and to search for, and a predicate hang. `Checker` starts that process and asks
it; run as a module this is that process. It reads and writes one JSON object a line. Only functions that the user names
are called: a model's text is handed to them and never run. It gets few variables and no key, and has a limit of memory
and of time.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import resource
import signal
import stat
import sys
from collections.abc import Callable, Generator, Iterable
from functools import partial
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import IO, Any

from tasks.council.evaluation.questions import Predicate, Question, Regex, Verdict

CHECK_S = 10.0
"""How long one check may take."""
LOAD_S = 60.0
"""How long the process may take to start, and a file of predicates to be imported."""
MAX_PROBLEM = 300
"""Characters of a problem that are told."""
MEMORY = 4 << 30
"""Bytes of data that the process may have."""
LATE_CHECKS = 2
"""Texts on which a question's check may run out of time; then it is given up, or many questions would take for ever."""
GIVEN_UP = f"the check ran out of time on {LATE_CHECKS} texts, so that no text of the question counts as right"
STOPPED = "the check ended its own process"
INHERITED = (
    *("HOME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "PATH"),
    *("TMPDIR", "TZ", "USER", "VIRTUAL_ENV"),
    *("CONCLAVE_STACK_HOME", "SUPERVISOR_PROCESS_NAME"),  # by which `conclave down` finds what a part has left
)
"""The variables that the process gets: no key, and no address of another part."""

_ROOT = str(Path(__file__).parents[2])


class Checker:
    """Asks a process for verdicts; one that has not answered in time is ended, and another is started."""

    def __init__(self, folder: Path, below: Path | None = None) -> None:
        """`folder` is where paths of predicates begin, `below` the one that their files have to lie in."""
        self._folder, self._below = folder, below
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Checker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def unusable(self, check: Predicate | Regex) -> str | None:
        """Why a function cannot be called, or a pattern is none; None where it can be used."""
        if isinstance(check, Regex):
            asked = {"compile": check.model_dump(mode="json")}
            return (await self._ask(asked, CHECK_S, "compiling it")).problem
        return (await self._ask({"load": check.function}, LOAD_S, "importing it")).problem

    async def verdicts(self, question: Question, texts: Iterable[str]) -> dict[str, Verdict]:
        """Whether each text is right; with a problem where the check cannot tell.

        A check that runs out of time on `LATE_CHECKS` of them is given up for all: which arm's text came first must not
        matter.
        """
        told: dict[str, Verdict] = {}
        asked = list(dict.fromkeys(texts))
        late = 0
        for text in asked:
            told[text] = verdict = await self.verdict(question, text)
            late += verdict.problem == _out_of_time("the check", CHECK_S)
            if late == LATE_CHECKS:
                return dict.fromkeys(asked, Verdict(False, GIVEN_UP))
        return told

    async def verdict(self, question: Question, text: str) -> Verdict:
        """Whether the text is right; with a problem where the check cannot tell."""
        if isinstance(question.check, Predicate) and (problem := await self.unusable(question.check)):
            return Verdict(False, problem)
        asked = {"question": question.model_dump(mode="json"), "text": text}
        return await self._ask(asked, CHECK_S, "the check")

    async def _ask(self, request: dict[str, Any], patience_s: float, what: str) -> Verdict:
        try:
            process = self._process or await self._start()
        except TimeoutError:
            return Verdict(False, f"the process for checks did not start within {LOAD_S:g} s")
        assert process.stdin and process.stdout
        try:
            async with asyncio.timeout(patience_s):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            await self._end()
            return Verdict(False, _out_of_time(what, patience_s))
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line:
            await self._end()
            return Verdict(False, STOPPED)
        return Verdict(**json.loads(line))

    async def _start(self) -> asyncio.subprocess.Process:
        """A process that is ready: what it takes to start is no check's time."""
        paths = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", __name__, str(self._folder), *([str(self._below)] if self._below else [])),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in INHERITED if name in os.environ} | {"PYTHONPATH": paths},
            start_new_session=True,
        )
        assert process.stdout
        try:
            async with asyncio.timeout(LOAD_S):
                await process.stdout.readline()
        except TimeoutError:
            await self._end()
            raise
        return process

    async def _end(self) -> None:
        """End the process and whatever it has started."""
        if process := self._process:
            self._process = None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()


def _out_of_time(what: str, patience_s: float) -> str:
    return f"{what} took longer than {patience_s:g} s"


# --- the process ----------------------------------------------------------------------------------


class _Predicates:
    """The user's functions, each file imported once, with the modules that lie beside it."""

    def __init__(self, folder: Path, below: Path | None) -> None:
        self._folder, self._below = folder, below
        self._modules: dict[str, Any] = {}
        self._neighbours: dict[Path, dict[str, Any]] = {}
        if below is not None:
            sys.path_hooks.insert(0, partial(_trusted_finder, below))

    def __getitem__(self, predicate: Predicate) -> Callable[[str, dict[str, Any]], object]:
        path = self._folder / predicate.file
        if predicate.file not in self._modules:
            with self._beside(path.parent):
                self._modules[predicate.file] = self._imported(path)
        function = getattr(self._modules[predicate.file], predicate.name, None)
        if not callable(function):
            raise LookupError(f"{predicate.file} has no function {predicate.name}")

        def call(text: str, question: dict[str, Any]) -> object:
            with self._beside(path.parent):
                return function(text, question)

        return call

    def _imported(self, path: Path) -> Any:
        """The module of a file."""
        if not path.is_file():
            raise LookupError(f"there is no file {path}")
        if self._below is not None:
            _require_trusted(path.resolve(), self._below)
        spec = importlib.util.spec_from_file_location(f"evaluation_predicates_{len(self._modules)}", path)
        assert spec and spec.loader
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @contextlib.contextmanager
    def _beside(self, folder: Path) -> Generator[None, None, None]:
        """Let what is imported in the block be found in this folder, and not in that of another file of predicates."""
        folder = folder.resolve()
        known = dict(sys.modules)
        sys.modules.update(self._neighbours.get(folder, {}))
        sys.path.append(str(folder))
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            loaded = {name: module for name, module in sys.modules.items() if name not in known}
            own = {name: module for name, module in loaded.items() if _lies_in(module, folder)}
            self._neighbours[folder] = own
            for name in own:
                del sys.modules[name]


def _lies_in(module: Any, folder: Path) -> bool:
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return file is not None and Path(file).resolve().is_relative_to(folder)


class _TrustedLoader(SourceFileLoader):
    """Loads the source of a module that only its operator can have written."""

    def __init__(self, fullname: str, path: str, below: Path) -> None:
        super().__init__(fullname, path)
        self._below = below

    def get_code(self, fullname: str) -> CodeType | None:
        """The code, which may have been compiled before. Raises LookupError where its source is not trusted."""
        _require_trusted(Path(self.path).resolve(), self._below)
        return super().get_code(fullname)

    def get_data(self, path: str) -> bytes:
        """What stands in a file, be it source or what was compiled of it. Raises LookupError."""
        if Path(path).exists():
            _require_trusted(Path(path).resolve(), self._below)
        return super().get_data(path)


def _trusted_finder(below: Path, entry: str) -> FileFinder:
    """Finds modules in a folder below `below`; raises ImportError for any other, which Python's own finds."""
    if not Path(entry).resolve().is_relative_to(below):
        raise ImportError(f"{entry} does not lie in {below}")
    return FileFinder(entry, (partial(_TrustedLoader, below=below), SOURCE_SUFFIXES))  # type: ignore[arg-type]


def _require_trusted(path: Path, below: Path) -> None:
    """Raise LookupError for code outside of the folder, or which others than its owner's group may write."""
    if not path.is_relative_to(below):
        raise LookupError(f"{path} does not lie in {below}, the folder for evaluations on this worker")
    for one in (path, *path.parents[: len(path.relative_to(below).parts)]):
        if one.stat().st_mode & stat.S_IWOTH:
            raise LookupError(f"{one} can be written by everybody, so nothing in it is run: chmod o-w")


def serve(requests: IO[str], verdicts: IO[str], folder: Path, below: Path | None) -> None:
    """Answer requests until there are no more."""
    predicates = _Predicates(folder, below)
    print("{}", file=verdicts, flush=True)
    for line in requests:
        _limit_time()
        try:
            verdict = _answer(json.loads(line), predicates)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the user's code may raise what it likes
            verdict = Verdict(False, f"{type(error).__name__}: {error}"[:MAX_PROBLEM])
        print(json.dumps(verdict._asdict()), file=verdicts, flush=True)


def _answer(request: dict[str, Any], predicates: _Predicates) -> Verdict:
    if "load" in request:
        return Verdict(bool(predicates[Predicate(type="predicate", function=request["load"])]))
    if "compile" in request:
        return _compiles(Regex.model_validate(request["compile"]))
    question, text = Question.model_validate(request["question"]), request["text"]
    if not isinstance(question.check, Predicate):
        return Verdict(question.is_right(text))
    said = predicates[question.check](text, request["question"])
    if not isinstance(said, bool):
        raise TypeError(f"{question.check.function} returned {said!r:.100}; True or False is wanted")
    return Verdict(said)


def _compiles(check: Regex) -> Verdict:
    try:
        check.compiled()  # and not searched for: also in an empty text that may never end
    except (re.error, ValueError, RecursionError, OverflowError) as error:
        return Verdict(False, f"is no regular expression: {error}"[:MAX_PROBLEM])
    return Verdict(True)


def _limit_memory() -> None:
    """Let what takes too much fail by itself, before the machine ends something else."""
    with contextlib.suppress(OSError, ValueError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time() -> None:
    """Let the kernel end an endless check whose asker was killed, and so ends it no more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + LOAD_S * (os.cpu_count() or 1)) + 1
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    _limit_memory()
    # What the user's code prints goes to standard error, and it reads nothing.
    with os.fdopen(os.dup(0)) as _requests, os.fdopen(os.dup(1), "w") as _verdicts:
        os.dup2(2, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        serve(_requests, _verdicts, Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)

"""Standard input and URLs: the same rows as from a file, bounded, and nothing secret in an error."""

from __future__ import annotations

import io
import os
import pty
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from blocks import remote_files
from blocks.remote_files import shown_url
from tasks.batch import sources
from tasks.batch.files import KINDS, opened
from tasks.batch.records import BatchFileError
from tasks.batch.rows import Columns, read_rows
from tests.tasks.batch.sheets import xlsx
from tests.tasks.batch.test_parquet import written

CONTENTS = {
    "csv": b"id,task\n1,a\n2,b\n",
    "jsonl": b'{"id": 1, "task": "a"}\n{"id": 2, "task": "b"}\n',
    "parquet": written({"id": ["1", "2"], "task": ["a", "b"]}),
    "xlsx": xlsx(("id", "task"), (1, "a"), (2, "b")),
}
"""The same two rows in each format."""
Input = Callable[[bytes], None]


def tasks(named: str | Path, **how: Any) -> list[str | None]:
    """The tasks of all rows."""
    with opened(named, **how) as records:
        return [row.item and row.item.task for row in read_rows(records, Columns())]


def refused(named: str | Path, **how: Any) -> str:
    """Why a file is refused as a whole."""
    with pytest.raises(BatchFileError) as error:
        tasks(named, **how)
    assert error.value.__cause__ is None or "pw" not in str(error.value.__cause__)
    return str(error.value)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Input]:
    """Gives bytes through a pipe, some at a time."""
    threads: list[threading.Thread] = []

    def given(content: bytes) -> None:
        reading, writing = os.pipe()
        thread = threading.Thread(target=_written, args=(writing, content), daemon=True)
        thread.start()
        threads.append(thread)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(os.fdopen(reading, "rb")))

    yield given
    for thread in threads:
        thread.join(10)


def _written(file: int, content: bytes) -> None:
    with os.fdopen(file, "wb", buffering=0) as pipe:
        for at in range(0, len(content), 5):
            try:
                pipe.write(content[at : at + 5])
            except BrokenPipeError:
                return


@pytest.mark.parametrize("kind", CONTENTS)
def test_standard_input_is_read_in_each_format(stdin: Input, kind: str) -> None:
    stdin(CONTENTS[kind])
    assert tasks("-", input_format=kind) == ["a", "b"]


def test_a_pause_of_the_writer_is_no_end(stdin: Input, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever shares the other end may have told the pipe not to wait."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(os.fdopen(reading, "rb")))
    thread = threading.Timer(0.2, _written, (writing, CONTENTS["csv"]))
    thread.start()
    assert tasks("-", input_format="csv") == ["a", "b"]
    thread.join(10)


def test_standard_input_needs_a_format(stdin: Input) -> None:
    stdin(b"")
    assert refused("-").startswith("--input-format: has to say what standard input is: csv, tsv, jsonl")
    assert refused("-", input_format="word").startswith("--input-format: 'word' is unknown; there are csv,")
    assert refused("-", input_format="csv") == "standard input is empty: there is no header and no row"


def test_errors_of_standard_input_have_lines_and_rows(stdin: Input) -> None:
    stdin(b"id,task\n1,a\n1,b\n")
    assert refused("-", input_format="csv").startswith("standard input line 3: id: '1' is the id of line 2")
    stdin(CONTENTS["parquet"][:-9])
    assert refused("-", input_format="parquet").startswith("standard input cannot be read: ")
    stdin(CONTENTS["xlsx"])
    assert "is a spreadsheet or a ZIP archive" in refused("-", input_format="csv")


def test_a_terminal_or_nothing_is_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb"), open(follower) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        assert "which is a terminal here" in refused("-", input_format="csv")
    assert "which is closed" in refused("-", input_format="csv")
    monkeypatch.setattr("sys.stdin", None)
    assert "which is closed" in refused("-", input_format="csv")


def test_what_is_spooled_and_what_is_read_is_bounded(stdin: Input, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.batch.files.MAX_SPOOLED", 100)
    stdin(CONTENTS["parquet"])
    assert "more than 100 bytes, which is too much for a temporary file" in refused("-", input_format="pq")
    monkeypatch.setattr(sources, "MAX_FILE", 10)
    stdin(CONTENTS["csv"])
    assert refused("-", input_format="csv") == "standard input cannot be read: it is larger than 10 bytes"


def test_a_format_overrides_the_end_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes(CONTENTS["csv"])
    assert tasks(path, input_format="CSV") == ["a", "b"]
    assert "or `--input-format` says it" in refused(path)
    assert set(KINDS) >= set(CONTENTS)


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's files in memory, which are gone afterwards."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_url_is_read_in_each_format(memory: Any, kind: str) -> None:
    memory.pipe(f"/in/rows.{kind}", CONTENTS[kind])
    assert tasks(f"memory://in/rows.{kind}") == ["a", "b"]
    memory.pipe("/in/rows", CONTENTS[kind])
    assert tasks("memory://in/rows", input_format=kind) == ["a", "b"]


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a b.csv"
    path.write_bytes(CONTENTS["csv"])
    assert tasks(path.as_uri()) == tasks(f"file://localhost{tmp_path}/a%20b.csv") == ["a", "b"]
    assert "names a path of this machine" in refused("file://elsewhere/a.csv")
    assert refused(f"file://{tmp_path}/none.csv").endswith("none.csv cannot be read: No such file or directory")


def test_a_url_is_bounded_as_a_file_is(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/rows.csv", CONTENTS["csv"])
    monkeypatch.setattr(sources, "MAX_FILE", 10)
    assert refused("memory://rows.csv") == "memory://rows.csv cannot be read: it is larger than 10 bytes"


def test_what_says_no_size_is_bounded_as_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may say nothing, or another size than it gives."""
    endless = type("Endless", (io.RawIOBase,), {"read": lambda _, size: b"a" * size, "seek": _no_seek})()
    monkeypatch.setattr(remote_files, "url_to_fs", lambda url: (_Store(endless), url))
    with (
        closing(remote_files.open_remote("s3://bucket/a", 3_000_000)) as file,
        pytest.raises(OSError, match="3,000,000"),
    ):
        file.read()


def _no_seek(*_: Any) -> int:
    raise ValueError("no seek")


class _Store:
    """Gives one file, or raises an error."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def open(self, *_: Any) -> Any:
        if isinstance(self._given, Exception):
            raise self._given
        return self._given


class _Answered(Exception):
    status = 403


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError("https://ann:pw@h/a.csv?sig=pw"), "there is no such file"),
        (PermissionError("pw"), "access is denied"),
        (TimeoutError("pw"), "it took too long"),
        (IsADirectoryError("pw"), "it is a folder"),
        (_Answered("https://ann:pw@h?sig=pw"), "the server answered 403"),
        (OSError(28, "pw"), "No space left on device"),
        (RuntimeError("ann:pw"), "it cannot be reached (RuntimeError)"),
        (
            ImportError("Install s3fs"),
            "https:// needs the package aiohttp, which is not installed: `pip install aiohttp`",
        ),
    ],
)
def test_an_error_of_a_store_tells_no_secret(monkeypatch: pytest.MonkeyPatch, error: Exception, told: str) -> None:
    monkeypatch.setattr(remote_files, "url_to_fs", lambda url: (_Store(error), url))
    assert refused("https://ann:pw@h/a.csv?sig=pw#pw") == f"https://h/a.csv cannot be read: {told}"
    failing = type("Failing", (io.RawIOBase,), {"read": partial(_raised, error), "seek": _no_seek, "size": None})()
    monkeypatch.setattr(remote_files, "url_to_fs", lambda url: (_Store(failing), url))
    assert refused("https://ann:pw@h/a.csv?sig=pw") == f"a.csv cannot be read: {told}"


def _raised(error: Exception, *_: Any) -> bytes:
    raise error


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/a/b.csv", "s3://bucket/a/b.csv"),
        ("https://ann:pw@h:8/a.csv?sig=pw#pw", "https://h:8/a.csv"),
        ("https://ann:p/w@h/a.csv", "https://..."),
        ("https://ann:p?w@h/a.csv", "https://..."),
        ("https://ann:p@w@h/a.csv", "https://h/a.csv"),
        ("https://h/a.csv?mail=ann@h", "https://..."),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("simplecache::memory://rows.csv", "a URL within another is not followed"),
        ("zip://rows.csv::memory://a.zip", "a URL within another is not followed"),
        ("memory://a.csv::file:///etc/passwd", "a URL within another is not followed"),
        ("file:///a.csv::memory://b", "a URL within another is not followed"),
        ("reference://a.csv", "its scheme has to be one of s3, gs, "),
        ("zip://a.csv", "its scheme has to be one of s3, gs, "),
        ("data://a.csv", "its scheme has to be one of s3, gs, "),
        ("memory://none.csv", "there is no such file"),
        ("memory://in\n\x1b[31m.csv", "there is no such file"),
    ],
)
def test_a_url_that_cannot_be_read_is_told(memory: Any, url: str, told: str) -> None:
    found = refused(url)
    assert told in found
    assert found.isprintable()


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str, package: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    assert f"pip install {package}" in refused(f"{scheme}://bucket/rows.csv")


class _Ranged(SimpleHTTPRequestHandler):
    """Gives ranges of its one file, as stores do."""

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = 0, len(content) - 1
        if asked := self.headers.get("Range"):
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[first : last + 1])


class _Broken(BaseHTTPRequestHandler):
    """Says that there is more than it gives."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"id,task\n1,a\n")


@contextmanager
def served(handler: Any) -> Iterator[str]:
    """The address of a server of our own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.servers
@pytest.mark.parametrize("handler", [SimpleHTTPRequestHandler, _Ranged])
def test_a_file_of_a_web_server_is_read_whether_it_gives_ranges_or_not(tmp_path: Path, handler: Any) -> None:
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    for kind, content in CONTENTS.items():
        (tmp_path / f"rows.{kind}").write_bytes(content)
    with served(partial(quiet, directory=str(tmp_path))) as address:
        for kind in CONTENTS:
            assert tasks(f"{address}/rows.{kind}?sig=pw") == ["a", "b"]
        assert refused(f"{address}/none.csv?sig=pw") == f"{address}/none.csv cannot be read: there is no such file"


@pytest.mark.servers
def test_an_answer_that_is_cut_off_is_no_file(tmp_path: Path) -> None:
    quiet = type("Quiet", (_Broken,), {"log_message": lambda *_: None})
    with served(quiet) as address:
        assert "cannot be read" in refused(f"{address}/rows.csv?sig=pw")

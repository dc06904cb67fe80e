"""Where OUTPUT is: a path of this machine, or a URL to which finished files are put."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from tasks.batch.output.disk import PRIVATE, replaced
from tasks.batch.output.errors import OutputError, read
from tasks.batch.records import BatchFileError
from tasks.council.plain import error_line, one_line

PARTS = ".parts"
_UNWRITABLE = ("http", "https")


class Target(Protocol):
    """An OUTPUT, and files beside it."""

    shown: str
    """For errors: without what a URL says of its user."""
    file_name: str
    parts: Path
    """The folder of its parts, on this machine."""

    def exists(self, ending: str = "") -> bool:
        """Whether there is a file; with an ending the one whose name has it in addition.

        Raises BatchFileError where there is something else.
        """

    def writing(self, ending: str = "") -> Any:
        """A context in which that file is written; it is there once all was."""


class LocalTarget:
    """A path."""

    def __init__(self, path: Path) -> None:
        """Raises BatchFileError where there is no folder for it."""
        self._path = path
        self.shown = one_line(str(path))
        self.file_name = path.name
        self.parts = path.with_name(path.name + PARTS)
        with read(path.parent):
            found = path.parent.is_dir()
        if not found:
            raise BatchFileError(f"{self.shown}: there is no folder {one_line(str(path.parent))}")

    def exists(self, ending: str = "") -> bool:
        """Whether there is a file. A link is refused, whatever it leads to, and so is a folder or a device."""
        path = self._with(ending)
        try:
            with read(path):
                mode = path.lstat().st_mode
        except OutputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return False
            raise
        if stat.S_ISLNK(mode):
            raise BatchFileError(f"{one_line(str(path))} is a symbolic link; name the file that is meant")
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise BatchFileError(f"{one_line(str(path))} is {kind}; OUTPUT is a file")
        return True

    def writing(self, ending: str = "") -> Any:
        """The file, which takes its place at the end."""
        return replaced(self._with(ending))

    def _with(self, ending: str) -> Path:
        return self._path.with_name(self._path.name + ending)


class UrlTarget:
    """A URL of fsspec. There is no rename: a file is made here, and put there whole."""

    def __init__(self, url: str, parts_in: Path) -> None:
        """Raises BatchFileError where there is nothing that writes to such a URL."""
        self.shown = shown_url(url)
        scheme = urlsplit(url).scheme
        if "::" in url or scheme in _UNWRITABLE:
            raise BatchFileError(f"{self.shown}: cannot be written to; give a path, or a URL of an object store")
        import fsspec

        self._files, self._path = self._asked(lambda: fsspec.core.url_to_fs(url))
        self.file_name = one_line(self._path.rstrip("/").rsplit("/", 1)[-1])
        own = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.parts = parts_in / f"{own}{PARTS}"

    def exists(self, ending: str = "") -> bool:
        """Whether there is a file; a folder of that name is refused."""
        path = self._path + ending
        if self._asked(lambda: self._files.isdir(path)):
            raise BatchFileError(f"{self.shown} is a folder; OUTPUT is a file")
        return bool(self._asked(lambda: self._files.exists(path)))

    @contextmanager
    def writing(self, ending: str = "") -> Generator[BinaryIO, None, None]:
        """A file of this machine, which is put there at the end, and compared by its size."""
        made, path = self.parts / f"finished{ending}", self._path + ending
        with replaced(made, PRIVATE) as file:
            yield file
        try:
            self._asked(lambda: self._files.put_file(str(made), path))
            there, size = self._asked(lambda: self._files.size(path)), made.stat().st_size
        finally:
            made.unlink(missing_ok=True)
        if there != size:
            raise OutputError(f"{self.shown}: {size:,} bytes were put there, and it has {there}")

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """What a library for such URLs answers; whatever it raises is told, since each has errors of its own."""
        try:
            return ask()
        except Exception as error:
            raise OutputError(f"{self.shown}: {error_line(error)}") from error


def shown_url(url: str) -> str:
    """A URL without the user, the password and the query in it."""
    if "://" not in url:
        return one_line(url)
    parts = urlsplit(url)
    return one_line(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def target_of(output: str | os.PathLike[str], parts_in: Path | None) -> Target:
    """The target that a path or a URL names; `parts_in` is the folder for the parts of a URL. Raises BatchFileError."""
    text = os.fspath(output)
    if "\0" in text or not text:
        raise BatchFileError("OUTPUT: a path has to have characters, and no NUL among them")
    if Path(text).name in ("", "..") or text.endswith("/"):
        raise BatchFileError(f"{shown_url(text)} names no file")
    if "://" not in text:
        return LocalTarget(Path(text))
    if urlsplit(text).scheme in ("file", "local"):
        raise BatchFileError(f"{shown_url(text)}: give its path alone")
    if parts_in is None:
        raise BatchFileError(f"{shown_url(text)}: a folder for the parts has to be given")
    return UrlTarget(text, parts_in)

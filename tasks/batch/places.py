"""Where files of batches may lie that others than the command line's user name: places of the worker's operator.

A parameter of a flow run is written by whoever reaches Prefect, and what it names is read and written with the worker's
rights: so it lies in a folder, or begins with a URL, that the operator named in CONCLAVE_BATCHES.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from blocks.files import open_below
from blocks.remote_files import PACKAGES, URL, shown_url
from tasks.batch.records import BatchFileError
from tasks.council.plain import SHOWN_INPUT, one_line

VARIABLE = "CONCLAVE_BATCHES"
"""The variable of a worker that names the places, separated by commas."""
MAX_MATCHES = 10_000
"""Files that one pattern may name."""
ANY_FOLDERS = "**"
MAX_ANY_FOLDERS = 3
"""`**` of one pattern: each is tried at every depth."""
MAX_SEEN = 1_000_000
"""Files and folders that are looked at for one pattern."""
_LOCAL = "file://"
_NO_PLAIN_PATH = re.compile(r"%2e|%2f|%5c|%00|\\|[\x00-\x20\x7f]", re.IGNORECASE)
"""What servers may take for a dot, a slash, or an end, and what no URL has."""


class _Prefix(NamedTuple):
    """A URL below which files may lie; scheme and host in small letters, the path without a slash at its end."""

    scheme: str
    host: str
    path: str


class Places:
    """Folders and URLs below which files may be read and written."""

    def __init__(self, named: Iterable[str]) -> None:
        """Raises BatchFileError for one that is neither a folder's absolute path nor a URL of a known scheme."""
        self.folders: list[Path] = []
        self._prefixes: list[_Prefix] = []
        for text in filter(None, map(str.strip, named)):
            if URL.match(text):
                self._prefixes.append(_prefix(text))
            else:
                self.folders.append(_folder(text))

    @classmethod
    def of_worker(cls) -> Places:
        """Those of this process's environment. Raises BatchFileError."""
        return cls(os.environ.get(VARIABLE, "").split(","))

    def allowed(self, text: str) -> Path | str:
        """The path, or the URL, for reading and writing. Raises BatchFileError where it lies in no place.

        No symbolic link stands on a path's way when this looks. Whoever may change the operator's folders can put one
        there afterwards: for reading `opened` looks again while it opens; who writes has to trust who writes there.
        """
        if is_url(text) and not text.lower().startswith(_LOCAL):
            return self._url(text)
        folder, parts = self._below(text)
        path = folder.joinpath(*parts)
        if path.resolve() != path:
            raise BatchFileError(f"{_shown(text)}: a symbolic link stands on the way to it, which is not followed")
        return path

    def opened(self, text: str) -> BinaryIO:
        """A regular file of a folder, open for reading, to which no symbolic link led.

        Raises BatchFileError, and OSError, whose `strerror` says what is wrong with it.
        """
        folder, parts = self._below(text)
        return open_below(folder, parts)

    def matching(self, pattern: str) -> list[str]:
        """The files that match a glob, sorted; `**` is any number of folders, and links are left out.

        The pattern begins in each folder, or is an absolute path into one. Raises BatchFileError where more than 10 000
        match, or where there are too many to look at.
        """
        if URL.match(pattern) or ".." in Path(pattern).parts or "\0" in pattern:
            raise BatchFileError(f"{_shown(pattern)}: a pattern is a path below a folder of {VARIABLE}, without `..`")
        if Path(pattern).parts.count(ANY_FOLDERS) > MAX_ANY_FOLDERS:
            raise BatchFileError(f"{_shown(pattern)}: has `**` more than {MAX_ANY_FOLDERS} times")
        found: set[str] = set()
        for path in self._files(self.folders_of(pattern), pattern):
            found.add(str(path))
            if len(found) > MAX_MATCHES:
                raise BatchFileError(f"{_shown(pattern)}: more than {MAX_MATCHES:,} files match")
        return sorted(found)

    def folders_of(self, pattern: str) -> list[Path]:
        """The folders in which a pattern may match. Raises BatchFileError where there is none."""
        if not Path(pattern).is_absolute():
            found = self.folders
        else:
            found = [folder for folder in self.folders if Path(pattern).is_relative_to(folder)]
        if not found:
            raise BatchFileError(f"{_shown(pattern)} lies in no folder of {VARIABLE}")
        return found

    def _files(self, folders: list[Path], pattern: str) -> Iterator[Path]:
        seen = 0
        for folder in folders:
            below = Path(pattern).relative_to(folder) if Path(pattern).is_absolute() else Path(pattern)
            for path in _walk(folder):
                seen += 1
                if seen > MAX_SEEN:
                    raise BatchFileError(f"{_shown(pattern)}: there are more than {MAX_SEEN:,} files to look at")
                if _fits(path.relative_to(folder).parts, below.parts) and stat.S_ISREG(path.lstat().st_mode):
                    yield path

    def _below(self, text: str) -> tuple[Path, tuple[str, ...]]:
        """The folder in which a path lies, and the way from there. Raises BatchFileError."""
        path = local_path(text) if text.lower().startswith(_LOCAL) else Path(text)
        if not self.folders:
            raise BatchFileError(
                f"{_shown(text)}: no file may be named on this worker: set {VARIABLE} there to a folder"
            )
        if "\0" in text or ".." in path.parts or not path.is_absolute():
            raise BatchFileError(f"{_shown(text)} has to be an absolute path without `..`")
        for folder in self.folders:
            if path.is_relative_to(folder) and path != folder:
                return folder, path.relative_to(folder).parts
        raise BatchFileError(f"{_shown(text)} does not lie in a folder of {VARIABLE}")

    def _url(self, text: str) -> str:
        asked = _prefix(text)
        for prefix in self._prefixes:
            same = (asked.scheme, asked.host) == (prefix.scheme, prefix.host)
            if same and (asked.path == prefix.path or asked.path.startswith(f"{prefix.path}/")):
                return f"{asked.scheme}://{asked.host}{asked.path}"
        raise BatchFileError(f"{_shown(text)} begins with no URL of {VARIABLE}")


def is_url(text: str) -> bool:
    """Whether it is a URL, chained ones included, and no path."""
    return URL.match(text) is not None or ("::" in text and "://" in text)


def local_path(url: str) -> Path:
    """The path of a `file://` URL. Raises BatchFileError."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BatchFileError(f"{_shown(url)} is no URL") from error
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise BatchFileError("a file:// URL names a path of this machine, such as file:///data/rows.csv")
    return Path(unquote(parts.path))


def _folder(text: str) -> Path:
    try:
        path = Path(text).expanduser()
        if not path.is_absolute():
            raise BatchFileError(f"{VARIABLE}: {_shown(text)} has to be an absolute path, or a URL")
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, BatchFileError):
            raise
        raise BatchFileError(f"{VARIABLE}: {_shown(text)} is no path of a folder") from error


def _prefix(text: str) -> _Prefix:
    """A URL's parts. Raises BatchFileError where it may mean another than it seems to."""
    scheme, _, rest = text.partition("://")
    wrong = _wrong(scheme.lower(), rest)
    if wrong:
        raise BatchFileError(f"{_shown(text)}: {wrong}")
    host, _, path = rest.partition("/")
    return _Prefix(scheme.lower(), host.lower(), f"/{path}".rstrip("/"))


def _wrong(scheme: str, rest: str) -> str | None:
    host, _, path = rest.partition("/")
    if scheme not in PACKAGES or "::" in rest:
        return f"a URL here has one scheme, of {', '.join(PACKAGES)}"
    if "@" in rest or "?" in rest or "#" in rest:
        return "a URL here has neither user nor `@`, and neither query nor fragment"
    if not host or _NO_PLAIN_PATH.search(rest):
        return "a URL here has a host or bucket, and no escaped dot or slash, backslash, blank or control in it"
    if "//" in f"/{path}" or {".", ".."} & set(path.split("/")):
        return "a URL here has no `..`, `.` or `//` in its path"
    return None


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path has the form of a pattern, folder by folder; a name is matched in linear time (`fnmatch`)."""
    if not pattern:
        return not parts
    if pattern[0] == ANY_FOLDERS:
        return any(_fits(parts[at:], pattern[1:]) for at in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _walk(folder: Path) -> Iterator[Path]:
    """Whatever lies below a folder; no link is followed, and what cannot be read is passed over."""
    for where, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        for name in (*folders, *files):
            yield Path(where, name)


def _shown(text: str) -> str:
    return one_line(shown_url(text) if "://" in text else text, SHOWN_INPUT)

"""Physical lines of a text file, one at a time: numbered, of bounded size, in the encoding that it really has."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Self

from tasks.batch.records import MAX_RECORD, BatchFileError

BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": ("utf-32", "utf-32-le"),
    b"\0\0\xfe\xff": ("utf-32", "utf-32-be"),
    b"\xff\xfe": ("utf-16", "utf-16-le"),
    b"\xfe\xff": ("utf-16", "utf-16-be"),
    b"\xef\xbb\xbf": ("utf-8", "utf-8-sig"),
}
"""Encodings that a file names by its first bytes; the longer marks first."""
NO_CHARSETS = ("charmap", "idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7")
"""Codecs of Python that are not what a file is in: escapes, names of hosts, and what turns plain text into other."""
MAX_LINE = 64_000_000
"""Characters of a line that are read to tell its size."""
MAX_FILE = 64_000_000_000
"""Characters of a file, which may grow while it is read."""
_MARK = "\ufeff"
_NO_TEXT = re.compile("[\ud800-\udfff]")
"""What stands in the text for each byte that is none of the encoding (PEP 383)."""


class Line(NamedTuple):
    """A line with its end; of one that is too large only the beginning, with the size of the whole."""

    text: str
    size: int


class Lines:
    """The lines of a file. `newline` as `open` has it: "" ends them at each kind of line end, "\\n" at that alone."""

    def __init__(self, file: BinaryIO, name: str, encoding: str | None, newline: str) -> None:
        """Without an encoding it is UTF-8, or what the file's byte order mark says. Raises BatchFileError."""
        self.name, self.number, self._left = name, 0, MAX_FILE
        self._encoding = _encoding_of(first_bytes(file, name), name, encoding)
        self._ends = ("\n",) if newline else ("\n", "\r")
        self._text = io.TextIOWrapper(file, self._encoding, errors="surrogateescape", newline=newline)

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        self.number += 1
        text = self._read(MAX_RECORD + 1)
        if self.number == 1:
            text = text.removeprefix(_MARK)
        if not text:
            self.number -= 1
            raise StopIteration
        return Line(text, len(text) + self._left_of(text))

    def close(self) -> None:
        """Close the file."""
        self._text.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _left_of(self, text: str) -> int:
        """Characters that are left of a line that is too large, which are read and let go."""
        left = 0
        while len(text) + left > MAX_RECORD and not text.endswith(self._ends):
            text = self._read(MAX_RECORD)
            left += len(text)
            if not text:
                break
            if left > MAX_LINE:
                raise BatchFileError(f"{self.name} line {self.number}: has more than {MAX_LINE:,} characters")
        return left

    def _read(self, most: int) -> str:
        try:
            text = self._text.readline(most)
        except UnicodeError as error:
            reason = getattr(error, "reason", error)
            raise self._undecodable(
                f"line {self.number} or soon after it: what stands there", f" ({reason})"
            ) from error
        except (OSError, TypeError) as error:  # TypeError: a file that does not wait has nothing to give
            told = getattr(error, "strerror", None) or error
            raise BatchFileError(f"{self.name} line {self.number} cannot be read: {told}") from error
        self._left -= len(text)
        if self._left < 0:
            raise BatchFileError(f"{self.name} line {self.number}: the file has more than {MAX_FILE:,} characters")
        if not text.isascii() and (found := _NO_TEXT.search(text)):
            byte = f"the byte 0x{ord(found[0]) & 0xFF:02x} (character {found.start() + 1:,})"
            raise self._undecodable(f"line {self.number}: {byte}")
        return text

    def _undecodable(self, what: str, why: str = "") -> BatchFileError:
        told = "`--encoding NAME` says what the file is in, such as cp1252 or utf-16"
        return BatchFileError(f"{self.name} {what} is no text in {self._encoding}{why}; {told}")


def first_bytes(file: BinaryIO, name: str) -> bytes:
    """The first bytes of a file, which stay unread. Raises BatchFileError where there can be none."""
    try:
        first = _beginning(file)
    except OSError as error:
        raise BatchFileError(f"{name} cannot be read: {error.strerror or error}") from error
    if first is None:
        raise BatchFileError(f"{name} cannot be read: it has nothing to give yet")
    return first


def _beginning(file: BinaryIO) -> bytes:
    if file.seekable() or not isinstance(file, io.BufferedReader):
        first = file.read(8)
        file.seek(0)
        return first
    return file.peek(8)[:8]


def _encoding_of(first: bytes, name: str, given: str | None) -> str:
    """What a file is in, as it was given or by its mark, else UTF-8. Raises BatchFileError where these differ."""
    marked = next((names for mark, names in BYTE_ORDER_MARKS.items() if first.startswith(mark)), None)
    if given is None:
        return marked[0] if marked else "utf-8"
    encoding = _charset(given)
    if marked and encoding not in marked:
        raise BatchFileError(f"--encoding: {given!r:.100} is wrong: the byte order mark of {name} says {marked[0]}")
    return encoding


def _charset(given: str) -> str:
    """The name that Python has for an encoding. Raises BatchFileError where it is none of texts."""
    try:
        found = codecs.lookup(given)
    except (LookupError, ValueError) as error:
        raise BatchFileError(f"--encoding: {given!r:.100} is no encoding of text") from error
    if found.name in NO_CHARSETS or not found._is_text_encoding:
        raise BatchFileError(f"--encoding: {given!r:.100} is nothing that a file of text is in; one is like cp1252")
    return found.name

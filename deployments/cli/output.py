"""Standard output and error as a shell leaves them: in any encoding, and with a reader that may go.

`conclave result ID | head -1` closes the pipe while there is more to say. A command whose answer nobody reads ends
as other programs do then (141, a shell's code for SIGPIPE), in order and without a word. What goes to standard error
is beside the answer: nothing ends for want of its reader, least of all a deliberation.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

from deployments.cli.support import FAILED

READER_LEFT = 128 + signal.SIGPIPE


class _Stream(io.TextIOWrapper):
    """A standard stream that shows what its encoding has no sign for as a question mark."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors="replace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str, /) -> int:
        """Write, or do what is right where it cannot be."""
        try:
            return super().write(text)
        except OSError as error:
            self._lost(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what was written, or do what is right where it cannot be."""
        try:
            super().flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        """What is still to be written goes nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        self._without_reader(error)

    def _without_reader(self, error: OSError) -> None:
        """How the command goes on."""


class _Answer(_Stream):
    """Standard output: the command ends with it."""

    def _without_reader(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise SystemExit(READER_LEFT)
        sys.stderr.write(f"conclave: standard output cannot be written: {error.strerror}\n")
        raise SystemExit(FAILED)


def guard_streams() -> None:
    """Put these in place of the process's own."""
    for name, kind in (("stdout", _Answer), ("stderr", _Stream)):
        stream: Any = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, kind(stream))


def flush_answer() -> None:
    """Write what is left of the answer while that can still end the command in the right way."""
    if isinstance(sys.stdout, _Answer):
        sys.stdout.flush()

"""One writer for an output: a lock that the system frees when its holder ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from tasks.batch.output.errors import OutputError, OutputInUse, written
from tasks.council.plain import one_line

NAME = "lock"
_TRIES = 100
_SHOWN = 200


class Lock:
    """Holds `flock` on a file in a folder, which is made where it is not there. Frees it at `release`."""

    def __init__(self, folder: Path, output: str) -> None:
        """Raises OutputInUse where somebody holds it, OutputError where it cannot be had."""
        self._path = folder / NAME
        self.new_folder = False
        with written(self._path):
            self._handle = self._taken(folder, output)

    def release(self) -> None:
        """Free it; a second time nothing is done."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def remove(self) -> None:
        """Take its file away, while it is held."""
        self._path.unlink(missing_ok=True)

    def _taken(self, folder: Path, output: str) -> int | None:
        for _ in range(_TRIES):
            self._make(folder)
            try:
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:  # another batch ended, and took the folder with it
                continue
            if self._locked(handle, output):
                return handle
        raise OutputError(f"{one_line(str(self._path))} cannot be locked: it is gone whenever it was made")

    def _make(self, folder: Path) -> None:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "its folder is a symbolic link", str(folder))
        try:
            folder.mkdir(0o700)
            self.new_folder = True
        except FileExistsError:
            if not folder.is_dir():
                raise

    def _locked(self, handle: int, output: str) -> bool:
        """Whether it is held, and is still the one in the folder; else its file is closed again."""
        held = False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = self._is_still_there(handle)
            if held:
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except BlockingIOError as error:
            holder = one_line(os.pread(handle, _SHOWN, 0).decode(errors="replace"))
            raise OutputInUse(f"{output} is being written by another batch ({holder or 'unknown'})") from error
        finally:
            if not held:
                os.close(handle)
        return held

    def _is_still_there(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self._path.stat())
        except FileNotFoundError:
            return False

"""The log files of a stack's parts: where they are, their ends, and what is written next."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from deployments.stack.parts import PART_NAMES
from deployments.stack.paths import StackPaths
from tasks.council.plain import plain

LINE_BYTES = 10_000
"""A longer line is shown in pieces."""
POLL_S = 0.2


def log_files(home: Path) -> dict[str, Path]:
    """The logs that exist, by the name of the part that writes them, the supervisor's last."""
    files = {name: StackPaths.of(home).log(name) for name in (*PART_NAMES, "supervisord")}
    return {name: path for name, path in files.items() if path.is_file()}


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file, without control characters that a terminal would act on."""
    with path.open(errors="replace") as file:
        return [plain(line.rstrip("\n")) for line in deque(file, maxlen=lines)]


def follow(files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Every line that is written from now on, with its part's name; a file that is rotated is opened anew."""
    positions = {name: (path.stat().st_ino, path.stat().st_size) for name, path in files.items()}
    while True:
        for name, path in files.items():
            try:
                inode, size = path.stat().st_ino, path.stat().st_size
            except FileNotFoundError:
                continue
            before, offset = positions[name]
            if inode != before or size < offset:
                offset = 0
            with path.open("rb") as file:
                file.seek(offset)
                while line := file.readline(LINE_BYTES):
                    if not line.endswith(b"\n") and len(line) < LINE_BYTES:
                        break  # its end is still to be written
                    offset += len(line)
                    yield name, plain(line.decode(errors="replace").rstrip("\n"))
            positions[name] = (inode, offset)
        time.sleep(POLL_S)

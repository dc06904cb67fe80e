"""The ends of log files, and what is written next."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

from deployments.stack.logs import follow, log_files, tail


def test_the_logs_that_exist_are_found(tmp_path: Path) -> None:
    """In the order of the parts."""
    (tmp_path / "logs").mkdir()
    assert log_files(tmp_path) == {}
    for name in ("ray", "nats", "supervisord", "unknown"):
        (tmp_path / "logs" / f"{name}.log").write_text("one\n")
    assert list(log_files(tmp_path)) == ["nats", "ray", "supervisord"]


def test_a_tail_is_the_last_lines_without_what_a_terminal_acts_on(tmp_path: Path) -> None:
    """Escape sequences of a part do not reach the terminal."""
    log = tmp_path / "a.log"
    log.write_bytes(b"first\nsecond\n\x1b[31mred\x07\tend\xff\n")
    assert tail(log, 2) == ["second", "[31mred\tend\ufffd"]
    assert tail(log, 0) == []


def test_following_outlasts_a_rotation_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    """What was there before is not told again; a file that was moved away is opened anew."""
    log = tmp_path / "a.log"
    log.write_text("before\n")
    lines = follow({"a": log})

    def write() -> None:
        with log.open("a") as file:
            file.write("one\ntw")
            file.flush()
            threading.Event().wait(0.5)
            file.write("o\n")
        threading.Event().wait(0.5)
        log.rename(tmp_path / "a.log.1")
        log.write_text("three\n")

    timer = threading.Timer(0.3, write)
    timer.start()
    try:
        assert [line for _, line in itertools.islice(lines, 3)] == ["one", "two", "three"]
    finally:
        timer.join()

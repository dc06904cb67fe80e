"""Whether a worker's loops turn: told after `RED_S`, and the worker is ended after `END_S`, to be started again.

A loop that stands still renews nothing and runs nothing, and would hold its requests for good. Each loop says once a
second that it turns, and a thread counts the seconds since. What the thread counts are its own waits, each for a few
ticks at most: a machine that slept and a process that was stopped have not stood still. A second process
(`watchdog.py`) ends the worker, since no thread in it can run while something, such as a regular expression, holds the
interpreter.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from deployments.worker.watchdog import MOST_TICKS

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

TICK_S = 1.0
RED_S = 30.0
END_S = 120.0
CLOSE_S = 5.0
STDERR = 2
WATCHDOG = Path(__file__).with_name("watchdog.py")
INHERITED = ("LD_LIBRARY_PATH", "CONCLAVE_STACK_HOME", "SUPERVISOR_PROCESS_NAME")
"""The variables that the watchdog gets: what Python may need, and by what `conclave down` finds a part's processes."""


class LoopWatch:
    """Counts for how long each loop has stood still. To be started and closed by the process whose loops these are."""

    def __init__(
        self, log: Log, red_s: float | None = None, end_s: float | None = None, tick_s: float | None = None
    ) -> None:
        self._log = log
        self._red_s, self._end_s, self._tick_s = red_s or RED_S, end_s or END_S, tick_s or TICK_S
        self._still: dict[str, float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._count, name="conclave-stalls", daemon=True)
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to count."""
        faulthandler.register(signal.SIGUSR2, file=STDERR)  # to the worker's log, without the interpreter
        self._tell(0.0)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._closing.set()
        self._thread.join(CLOSE_S)
        faulthandler.unregister(signal.SIGUSR2)

    async def beating(self, name: str) -> None:
        """Say that the loop which runs this turns, until it is cancelled."""
        try:
            while True:
                self._still[name] = 0.0
                await asyncio.sleep(self._tick_s)
        finally:
            self._still.pop(name, None)

    @property
    def trouble(self) -> str | None:
        """Which loop has stood still for too long; None where all turn."""
        name, seconds = self._longest()
        return f"{name} has stood still for {seconds:.0f} s" if seconds >= self._red_s else None

    # --- in the thread ----------------------------------------------------------------------------

    def _count(self) -> None:
        since = time.monotonic()
        while not self._closing.wait(self._tick_s):
            before, since = since, time.monotonic()
            for name in list(self._still):
                with suppress(KeyError):  # that loop has ended just now
                    self._still[name] += min(since - before, MOST_TICKS * self._tick_s)
            self._tell(self._longest()[1])
        self._end_watchdog()

    def _longest(self) -> tuple[str, float]:
        return max(list(self._still.items()), key=lambda one: one[1], default=("", 0.0))

    def _tell(self, seconds: float) -> None:
        """Tell the watchdog, and start one where there is none."""
        try:
            if self._watchdog is None or self._watchdog.poll() is not None:
                self._watchdog = self._start_watchdog()
            assert self._watchdog.stdin is not None
            os.write(self._watchdog.stdin.fileno(), f"{seconds:g}\n".encode())
        except BlockingIOError:  # it is stopped, and knows enough once it goes on
            return
        except OSError as error:
            self._log.warning("nothing watches this worker from outside now (%s); tried again", error)

    def _start_watchdog(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", str(WATCHDOG), str(os.getpid()), str(self._tick_s), str(self._end_s)]
        environ = {name: os.environ[name] for name in INHERITED if name in os.environ}
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0, env=environ)
        assert started.stdin is not None
        os.set_blocking(started.stdin.fileno(), False)
        return started

    def _end_watchdog(self) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._watchdog.wait(CLOSE_S)

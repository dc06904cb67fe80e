"""What the gateway counts of its answers, for Prometheus: by route or call and status, and how long they took."""

from __future__ import annotations

import time
from collections import Counter

BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Seconds."""


class Counts:
    """Answers and their times; streams of events count when they end, without a time."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, str, int]] = Counter()
        self._within: dict[tuple[str, str], list[int]] = {}
        self._sums: Counter[tuple[str, str]] = Counter()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._call_sums: Counter[tuple[str, str]] = Counter()
        self.listeners = 0
        self._began = time.monotonic()

    @property
    def uptime_s(self) -> int:
        """Whole seconds since it began to count."""
        return int(time.monotonic() - self._began)

    def called(self, method: str, code: str, seconds: float) -> None:
        """Count a call over gRPC, which may have waited for a decision."""
        self._calls[method, code] += 1
        self._call_sums[method, code] += seconds  # type: ignore[assignment]  # a Counter of floats

    def answered(self, method: str, path: str, status: int, seconds: float | None) -> None:
        """Count an answer."""
        self._answers[method, path, status] += 1
        if seconds is None:
            return
        within = self._within.setdefault((method, path), [0] * (len(BUCKETS) + 1))
        for place, bound in enumerate((*BUCKETS, float("inf"))):
            within[place] += seconds <= bound
        self._sums[method, path] += seconds  # type: ignore[assignment]  # a Counter of floats

    def lines(self) -> list[str]:
        """In Prometheus' text format."""
        lines = ["# TYPE conclave_http_requests_total counter"]
        for (method, path, status), count in sorted(self._answers.items()):
            lines.append(f'conclave_http_requests_total{{method="{method}",path="{path}",status="{status}"}} {count}')
        lines.append("# TYPE conclave_http_request_seconds histogram")
        for (method, path), within in sorted(self._within.items()):
            labels = f'method="{method}",path="{path}"'
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), within, strict=True):
                lines.append(f'conclave_http_request_seconds_bucket{{{labels},le="{bound}"}} {count}')
            lines.append(f"conclave_http_request_seconds_sum{{{labels}}} {self._sums[method, path]:.6f}")
            lines.append(f"conclave_http_request_seconds_count{{{labels}}} {within[-1]}")
        lines += self._of_calls()
        return [*lines, "# TYPE conclave_listeners gauge", f"conclave_listeners {self.listeners}"]

    def _of_calls(self) -> list[str]:
        """Those over gRPC: none where there were none."""
        lines = []
        for name, counts, form in (("requests_total", self._calls, "d"), ("seconds_total", self._call_sums, ".6f")):
            if counts:
                lines.append(f"# TYPE conclave_grpc_{name} counter")
            for (method, code), count in sorted(counts.items()):
                lines.append(f'conclave_grpc_{name}{{method="{method}",code="{code}"}} {count:{form}}')
        return lines

"""`/metrics` in Prometheus' text format: the vllm: families of vLLM `v1/metrics/loggers.py`.

Names and labels are held to vLLM 0.32 by `tests/contract`. The numbers are the simulator's own; the families that
would need a GPU are constant (preemptions, sleep state). As there, a client that leaves is counted nowhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")
SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKENS = (1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 50_000.0)
COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0)

HISTOGRAMS = {
    "time_to_first_token_seconds": SECONDS,
    "inter_token_latency_seconds": SECONDS,
    "request_time_per_output_token_seconds": SECONDS,
    "e2e_request_latency_seconds": SECONDS,
    "request_queue_time_seconds": SECONDS,
    "request_inference_time_seconds": SECONDS,
    "request_prefill_time_seconds": SECONDS,
    "request_decode_time_seconds": SECONDS,
    "request_prompt_tokens": TOKENS,
    "request_generation_tokens": TOKENS,
    "request_max_num_generation_tokens": TOKENS,
    "request_params_max_tokens": TOKENS,
    "request_params_n": COUNTS,
    "iteration_tokens_total": TOKENS,
}
COUNTERS = (
    "prefix_cache_queries",
    "prefix_cache_hits",
    "prompt_tokens_cached",
    "prompt_tokens",
    "generation_tokens",
    "num_preemptions",
)


class Histogram:
    """Observations in buckets."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Buckets up to each bound, and one above."""
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Adds one observation."""
        self._buckets[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        """Samples in the text format; buckets there are cumulative."""
        found, lines = 0, []
        for bound, count in zip((*self._bounds, "+Inf"), self._buckets, strict=True):
            found += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {found}')
        return [*lines, f"{name}_sum{{{labels}}} {self._sum}", f"{name}_count{{{labels}}} {found}"]


class Metrics:
    """What the server has done since its start."""

    def __init__(self, model: str) -> None:
        """All at zero, labelled with the model."""
        name = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._model = f'model_name="{name}"'
        self._labels = f'engine="0",{self._model}'
        self._totals: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()
        self._rejected = 0
        self._histograms = {name: Histogram(bounds) for name, bounds in HISTOGRAMS.items()}

    def scheduled(self, prompt_tokens: int, cached_tokens: int, queue_s: float) -> None:
        """A request got its slot."""
        self._totals["prefix_cache_queries"] += prompt_tokens
        self._totals["prefix_cache_hits"] += cached_tokens
        self._totals["prompt_tokens_cached"] += cached_tokens
        self._totals["prompt_tokens"] += prompt_tokens
        self._histograms["request_queue_time_seconds"].observe(queue_s)
        self._histograms["request_prompt_tokens"].observe(prompt_tokens)
        self._histograms["iteration_tokens_total"].observe(prompt_tokens - cached_tokens)

    def generated(self, tokens: int, reason: str) -> None:
        """A choice of an answer ended."""
        self._totals["generation_tokens"] += tokens
        self._finished[reason] += 1
        self._histograms["request_generation_tokens"].observe(tokens)

    def answered(self, n: int, max_tokens: int, longest: int) -> None:
        """A request was served to its end; `longest` is the length of its longest choice."""
        self._histograms["request_max_num_generation_tokens"].observe(longest)
        self._histograms["request_params_n"].observe(n)
        self._histograms["request_params_max_tokens"].observe(max_tokens)

    def timed(self, queue_s: float, prefill_s: float, decode_s: float, tokens: int) -> None:
        """The same in seconds: waiting, to the first token, and from it to the last of `tokens`."""
        inference_s, token_s = prefill_s + decode_s, decode_s / max(1, tokens)
        observed = {
            "time_to_first_token_seconds": queue_s + prefill_s,
            "inter_token_latency_seconds": token_s,
            "request_time_per_output_token_seconds": token_s,
            "e2e_request_latency_seconds": queue_s + inference_s,
            "request_inference_time_seconds": inference_s,
            "request_prefill_time_seconds": prefill_s,
            "request_decode_time_seconds": decode_s,
        }
        for name, seconds in observed.items():
            self._histograms[name].observe(seconds)

    def rejected(self) -> None:
        """The queue was full."""
        self._rejected += 1

    def render(self, running: int, waiting: int, usage: float) -> str:
        """The page; `usage` is the share of the KV cache (0 to 1)."""
        lines: list[str] = []
        self._add(lines, "num_requests_running", "gauge", {"": running})
        self._add(lines, "num_requests_waiting", "gauge", {"": waiting})
        reasons = {',reason="capacity"': waiting, ',reason="deferred"': 0}
        self._add(lines, "num_requests_waiting_by_reason", "gauge", reasons)
        self._add(lines, "kv_cache_usage_perc", "gauge", {"": usage})
        self._add(lines, "engine_sleep_state", "gauge", {',sleep_state="awake"': 1})
        self._add(lines, "cache_config_info", "gauge", {',block_size="32"': 1})
        for name in COUNTERS:
            self._add(lines, f"{name}_total", "counter", {"": self._totals[name]})
        prompt, cached = self._totals["prompt_tokens"], self._totals["prompt_tokens_cached"]
        sources = {"local_compute": prompt - cached, "local_cache_hit": cached, "external_kv_transfer": 0}
        by_source = {f',source="{source}"': tokens for source, tokens in sources.items()}
        self._add(lines, "prompt_tokens_by_source_total", "counter", by_source)
        finished = {f',finished_reason="{reason}"': self._finished[reason] for reason in FINISHED_REASONS}
        self._add(lines, "request_success_total", "counter", finished)
        lines += self._head("admission_rejections_total", "counter")
        for reason, count in (("max_num_queued_reqs", self._rejected), ("max_num_queued_tokens", 0)):
            lines.append(f'vllm:admission_rejections_total{{{self._model},reason="{reason}"}} {count}')
        for name, histogram in self._histograms.items():
            lines += self._head(name, "histogram")
            lines += histogram.lines(f"vllm:{name}", self._labels)
        return "\n".join(lines) + "\n"

    def _add(self, lines: list[str], name: str, kind: str, samples: Mapping[str, float]) -> None:
        lines += self._head(name, kind)
        lines += [f"vllm:{name}{{{self._labels}{labels}}} {value}" for labels, value in samples.items()]

    @staticmethod
    def _head(name: str, kind: str) -> list[str]:
        return [f"# HELP vllm:{name} Simulated.", f"# TYPE vllm:{name} {kind}"]

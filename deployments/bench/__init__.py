"""The project's own benchmark: councils beside the floor, and the stock runner, in one run on one stack."""

from deployments.bench.program import main

__all__ = ["main"]

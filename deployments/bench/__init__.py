"""The project's own benchmark: councils beside the floor, the stock runner and LangGraph, in one run on one stack."""

from deployments.bench.command import main

__all__ = ["main"]

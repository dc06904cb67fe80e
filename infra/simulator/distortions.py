"""What faults do to an answer that has been made: to its text, its body or its stream.

| kind | plain answer | stream |
|---|---|---|
| cut_off, abort | half the text, finish_reason length or abort | the same |
| empty, null | content "" or null | the same |
| think, think_unclosed | the text begins with a thought, that ends or not | the same |
| garbage, not_completion | a body that is no JSON, or no completion | an event that is none, then [DONE] |
| close_midway | half the body, then the connection closes | half the events |
| stream_error | 500, the engine died | half the events, an error with HTTP 200, then [DONE] |
"""

from __future__ import annotations

from dataclasses import replace

from infra.simulator.answers import DONE, Answer, event
from infra.simulator.errors import engine_dead

THOUGHT = "<think>The task is read twice, then the simplest plan is taken."
NO_JSON = b"{this is no JSON"
NO_COMPLETION = b'{"object":"list","data":[]}'

Events = list[tuple[float, bytes]]


def distorted(answer: Answer, kind: str | None) -> Answer:
    """The answer after a fault of this kind befell its text."""
    text = answer.text or ""
    match kind:
        case "cut_off":
            return Answer(text[: len(text) // 2], "length")
        case "abort":
            return Answer(text[: len(text) // 2], "abort")
        case "stream_error":
            return replace(answer, finish_reason="error")
        case "empty":
            return replace(answer, text="")
        case "null":
            return replace(answer, text=None)
        case "think":
            return replace(answer, text=f"{THOUGHT}</think>\n\n{text}")
        case "think_unclosed":
            return replace(answer, text=f"{THOUGHT} {text}")
    return answer


def spoiled_body(body: bytes, kind: str | None) -> bytes:
    """The body after the fault; raises ApiError (500) for `stream_error`."""
    if kind == "stream_error":
        raise engine_dead()
    return {"garbage": NO_JSON, "not_completion": NO_COMPLETION}.get(kind or "", body)


def spoiled_events(events: Events, kind: str | None) -> Events:
    """The stream after the fault."""
    half = events[: len(events) // 2]
    match kind:
        case "garbage":
            return [(1.0, b"data: " + NO_JSON + b"\n\n"), (1.0, DONE)]
        case "not_completion":
            return [(1.0, b"data: " + NO_COMPLETION + b"\n\n"), (1.0, DONE)]
        case "close_midway":
            return half
        case "stream_error":
            return [*half, (0.5, event(engine_dead().body)), (0.5, DONE)]
    return events

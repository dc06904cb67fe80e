"""`POST /v1/chat/completions`: from the request over a slot to the last byte, or to the fault it met."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from infra.simulator import errors
from infra.simulator.answers import Completion, generate
from infra.simulator.calls import Call
from infra.simulator.chat import ChatRequest, Prompt, parse, render
from infra.simulator.checks import check
from infra.simulator.dialects import in_place_of_answer, limit, refuse, respoken_body, respoken_events
from infra.simulator.distortions import distorted, spoiled_body, spoiled_events
from infra.simulator.engine import QueueFull, Timing, sleep_until
from infra.simulator.errors import ApiError
from infra.simulator.faults import FaultRule
from infra.simulator.state import REQUEST_ID, STATE, State, id_of

EVENT_STREAM = "text/event-stream; charset=utf-8"


class _HangUp(Exception):
    """The connection is to be closed without another byte."""


@dataclass
class _Job:
    """A request on its way. Times are seconds of the loop's clock."""

    request: web.Request
    state: State
    call: Call
    chat: ChatRequest
    prompt: Prompt
    fault: FaultRule | None
    received: float

    @property
    def kind(self) -> str | None:
        """The fault it is to meet."""
        return self.fault.kind if self.fault else None


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answers as vLLM would; a client that leaves frees its slot at once and is noted as aborted."""
    state = request.app[STATE]
    call = state.calls.received(id_of(request))
    try:
        return await _serve(request, state, call)
    except ApiError as error:
        refusal = web.json_response(error.body, status=error.status, headers=error.headers)
        return await _send(refusal, request, call)
    except _HangUp:
        if request.transport is not None:
            request.transport.close()
        return web.Response()
    except (asyncio.CancelledError, ConnectionError):
        call.aborted = True
        call.finish_reason = call.finish_reason or "abort"
        raise


async def _serve(request: web.Request, state: State, call: Call) -> web.StreamResponse:
    received = asyncio.get_running_loop().time()
    chat = parse(ChatRequest, await request.read(), request.content_type)
    call.asked = chat.asked
    prompt = render(chat.messages)
    limit(call, state.calls, state.settings.dialects)
    refuse(chat, state.settings.dialects)
    if (instead := in_place_of_answer(state.settings.dialects)) is not None:
        return await _send(instead, request, call)
    fault = state.faults.pick(call.request_id, prompt.text)
    job = _Job(request, state, call, chat, prompt, fault, received)
    if fault is not None:
        await _refuse(job, fault)
    check(chat, prompt, state.settings)
    try:
        async with state.slots.taken(chat.priority):
            response = await _answer(job)
    except QueueFull as error:
        state.metrics.rejected()
        raise errors.busy() from error
    return await _send(response, request, call)


async def _refuse(job: _Job, fault: FaultRule) -> None:
    """Meets the faults that come before any work; returns if it is another one."""
    served = job.state.settings.model
    refusals: dict[str, Callable[[], Exception]] = {
        "500": errors.engine_dead,
        "503": lambda: errors.busy(fault.headers),
        "429": lambda: errors.too_many_requests(fault.headers),
        "404_model": lambda: errors.unknown_model(job.chat.model or served, served),
        "too_long": lambda: errors.prompt_too_long(job.state.settings.max_model_len),
        "unauthorized": errors.unauthorized,
        "close": _HangUp,
        "die": _HangUp,
    }
    if fault.kind not in refusals:
        return
    await asyncio.sleep(fault.delay_s or 0)
    if fault.kind == "die":
        job.state.die()
    raise refusals[fault.kind]()


async def _answer(job: _Job) -> web.StreamResponse:
    """Takes the time of an answer and returns it, its last byte not yet sent."""
    loop, state = asyncio.get_running_loop(), job.state
    started = loop.time()
    job.call.started()
    completion = _generated(job, started)
    if job.kind == "hang":
        await loop.create_future()
    delay_s = job.fault.delay_s if job.fault else None
    timing = state.pace.timing(max(answer.tokens for answer in completion.answers), delay_s or 0)
    if job.chat.stream and "one_piece" not in state.settings.dialects:
        response = await _streamed(job, completion, started, timing)
        _finish(job, completion, started, timing)
        return response
    body = completion.body()
    await sleep_until(started + timing.total_s)
    _finish(job, completion, started, timing)
    return await _whole(job, body)


def _finish(job: _Job, completion: Completion, started: float, timing: Timing) -> None:
    """Counts an answer that is done."""
    metrics = job.state.metrics
    job.call.finish_reason = completion.answers[0].finish_reason
    for answer in completion.answers:
        metrics.generated(answer.tokens, answer.finish_reason)
    longest = max(answer.tokens for answer in completion.answers)
    metrics.answered(job.chat.choices, job.chat.output_limit[1] or job.state.settings.max_model_len, longest)
    decode_s = timing.total_s - timing.first_s
    metrics.timed(started - job.received, timing.first_s, decode_s, completion.answers[0].tokens)


def _generated(job: _Job, started: float) -> Completion:
    chat, prompt, state = job.chat, job.prompt, job.state
    cached = state.prefixes.admit(prompt.text, chat.cache_salt)
    room = max(1, state.settings.max_model_len - prompt.tokens)
    limit = min(chat.output_limit[1] or room, room)
    part = state.players.part(job.call.request_id, prompt)
    answers = generate(chat, prompt, random.getrandbits(31), limit, part)
    state.metrics.scheduled(prompt.tokens, cached, started - job.received)
    return Completion(
        id=f"chatcmpl-{job.call.request_id}",
        created=int(time.time()),
        model=state.settings.model,
        answers=tuple(distorted(answer, job.kind) for answer in answers),
        prompt_tokens=prompt.tokens,
        cached_tokens=cached,
    )


async def _whole(job: _Job, body: bytes) -> web.StreamResponse:
    """The answer in one piece, or half of it."""
    if job.kind == "close_midway":
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        response.content_type = "application/json"
        await response.prepare(job.request)
        await response.write(body[: len(body) // 2])
        raise _HangUp
    body = respoken_body(body, job.state.settings.dialects)
    return web.Response(body=spoiled_body(body, job.kind), content_type="application/json")


async def _streamed(job: _Job, completion: Completion, started: float, timing: Timing) -> web.StreamResponse:
    """The answer in events, each when its share of the time is over."""
    response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, REQUEST_ID: job.call.request_id})
    events = respoken_events(completion.events(job.chat.include_usage), job.state.settings.dialects)
    events = spoiled_events(events, job.kind)
    await sleep_until(started + timing.first_s)
    await response.prepare(job.request)
    for share, data in events:
        if (due := started + timing.due_s(share)) > asyncio.get_running_loop().time():
            await sleep_until(due)
        await response.write(data)
    if job.kind == "close_midway":
        raise _HangUp
    return response


async def _send(response: web.StreamResponse, request: web.Request, call: Call) -> web.StreamResponse:
    if not response.prepared:
        response.headers[REQUEST_ID] = call.request_id
    await response.prepare(request)
    await response.write_eof()
    call.sent(response.status)
    return response

"""The other routes: what vLLM tells of itself, and the simulator's own under `/sim`.

Observed with vLLM 0.32: only `/v1` asks for the key; unknown paths and methods get FastAPI's `detail`. Whoever may
order faults has the key, too; health and metrics are open, as vLLM's are.
"""

from __future__ import annotations

import hmac
import json
import time
import uuid
import zlib
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from infra.simulator import errors
from infra.simulator.answers import FINGERPRINT
from infra.simulator.chat import TokenizeRequest, parse, render
from infra.simulator.completions import chat_completions
from infra.simulator.dialects import in_place, respoken_models
from infra.simulator.faults import parse_rule
from infra.simulator.pacing import Pacing, parse_pacing
from infra.simulator.players import Players, parse_players
from infra.simulator.prefix_cache import CHARS_PER_TOKEN
from infra.simulator.state import REQUEST_ID, STATE, id_of

VERSION = "0.32.0+simulator"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
VOCABULARY = 2_048
GUARDED = ("/v1", "/sim/")


@web.middleware
async def as_vllm(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Asks for the key, and words aiohttp's own errors as vLLM does."""
    try:
        key = request.app[STATE].settings.api_key
        if key is not None and request.path.startswith(GUARDED):
            _check_key(request, key.get_secret_value())
        dialects = request.app[STATE].settings.dialects
        instead = in_place(dialects, request.path) if request.path.startswith("/v1") else None
        return await handler(request) if instead is None else instead
    except errors.ApiError as error:
        return web.json_response(error.body, status=error.status, headers=error.headers)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        allowed: set[str] = getattr(error, "allowed_methods", set()) - {"HEAD"}
        headers = {"Allow": ", ".join(sorted(allowed))} if allowed else None
        return web.json_response({"detail": error.reason}, status=error.status, headers=headers)


async def name_request(request: web.Request, response: web.StreamResponse) -> None:
    """Echoes X-Request-Id, as vLLM does with `--enable-request-id-headers`."""
    if "long_header" in request.app[STATE].settings.dialects:
        response.headers["X-Policy"] = "x" * 30_000
    if REQUEST_ID not in response.headers:
        response.headers[REQUEST_ID] = id_of(request)


def _check_key(request: web.Request, key: str) -> None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), key.encode()):
        if request.path.startswith("/v1"):
            request.app[STATE].calls.received(id_of(request)).sent(401)
        raise errors.unauthorized()


async def _models(request: web.Request) -> web.Response:
    settings = request.app[STATE].settings
    card = {
        "id": settings.model,
        "object": "model",
        "created": int(time.time()),
        "owned_by": FINGERPRINT,
        "root": settings.model,
        "parent": None,
        "max_model_len": settings.max_model_len,
        "permission": [_permission()],
    }
    return respoken_models({"object": "list", "data": [card]}, settings.dialects)


def _permission() -> dict[str, Any]:
    """As in vLLM's card, where it is always the same."""
    allowed = {"sampling": True, "logprobs": True, "view": True}
    refused = {"create_engine": False, "search_indices": False, "fine_tuning": False}
    return {
        "id": f"modelperm-{uuid.uuid4().hex[:16]}",
        "object": "model_permission",
        "created": int(time.time()),
        **{f"allow_{name}": value for name, value in (allowed | refused).items()},
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }


async def _alive(request: web.Request) -> web.Response:
    return web.Response()


async def _version(request: web.Request) -> web.Response:
    return web.json_response({"version": VERSION})


async def _load(request: web.Request) -> web.Response:
    slots = request.app[STATE].slots
    return web.json_response({"server_load": slots.running + slots.waiting})


async def _metrics(request: web.Request) -> web.Response:
    state = request.app[STATE]
    running, waiting = state.slots.running, state.slots.waiting
    page = state.metrics.render(running, waiting, min(1.0, running / state.slots.limit))
    return web.Response(body=page.encode(), headers={"Content-Type": METRICS_TYPE})


async def _tokenize(request: web.Request) -> web.Response:
    """Tokens of `prompt` or `messages`: four characters each, whatever they are."""
    body = await request.read()
    asked = parse(TokenizeRequest, body, request.content_type)
    if asked.prompt is None and asked.messages is None:
        given = json.loads(body)
        what = {"msg": "Field required", "input": given}
        raise errors.invalid_fields([{"type": "missing", "loc": (field,), **what} for field in ("prompt", "messages")])
    text = render(asked.messages or []).text if asked.prompt is None else asked.prompt
    pieces = [text[at : at + CHARS_PER_TOKEN] for at in range(0, len(text), CHARS_PER_TOKEN)]
    return web.json_response(
        {
            "count": len(pieces),
            "max_model_len": request.app[STATE].settings.max_model_len,
            "tokens": [zlib.crc32(piece.encode(errors="replace")) % VOCABULARY for piece in pieces],
            "token_strs": pieces if asked.return_token_strs else None,
        }
    )


async def _add_fault(request: web.Request) -> web.Response:
    request.app[STATE].faults.add(parse_rule(await request.read()))
    return await _list_faults(request)


async def _list_faults(request: web.Request) -> web.Response:
    return web.json_response({"faults": request.app[STATE].faults.listed()})


async def _clear_faults(request: web.Request) -> web.Response:
    request.app[STATE].faults.clear()
    return await _list_faults(request)


async def _set_players(request: web.Request) -> web.Response:
    request.app[STATE].players = parse_players(await request.read())
    return await _list_players(request)


async def _list_players(request: web.Request) -> web.Response:
    return web.json_response(request.app[STATE].players.model_dump(mode="json"))


async def _clear_players(request: web.Request) -> web.Response:
    request.app[STATE].players = Players()
    return await _list_players(request)


async def _set_pace(request: web.Request) -> web.Response:
    return _paced(request, parse_pacing(await request.read()))


async def _show_pace(request: web.Request) -> web.Response:
    return _paced(request, Pacing())


async def _reset_pace(request: web.Request) -> web.Response:
    settings = request.app[STATE].settings
    request.app[STATE].pace.latency_s = settings.latency_s
    return _paced(request, Pacing(slots=settings.slots))


def _paced(request: web.Request, pacing: Pacing) -> web.Response:
    """Take a pace over, and tell the one that is on."""
    state = request.app[STATE]
    if pacing.latency_s is not None:
        state.pace.latency_s = pacing.latency_s
    if pacing.slots is not None:
        state.slots.resize(pacing.slots)
    return web.json_response({"slots": state.slots.limit, "latency_s": state.pace.latency_s})


async def _list_calls(request: web.Request) -> web.Response:
    return web.json_response(request.app[STATE].calls.listed())


async def _clear_calls(request: web.Request) -> web.Response:
    request.app[STATE].calls.clear()
    return await _list_calls(request)


ROUTES = (
    web.post("/v1/chat/completions", chat_completions),
    web.get("/v1/models", _models),
    web.get("/health", _alive),
    web.get("/ping", _alive),
    web.post("/ping", _alive),
    web.get("/version", _version),
    web.get("/load", _load),
    web.get("/metrics", _metrics),
    web.post("/tokenize", _tokenize),
    web.post("/sim/faults", _add_fault),
    web.get("/sim/faults", _list_faults),
    web.delete("/sim/faults", _clear_faults),
    web.put("/sim/players", _set_players),
    web.get("/sim/players", _list_players),
    web.delete("/sim/players", _clear_players),
    web.put("/sim/pace", _set_pace),
    web.get("/sim/pace", _show_pace),
    web.delete("/sim/pace", _reset_pace),
    web.get("/sim/calls", _list_calls),
    web.delete("/sim/calls", _clear_calls),
)

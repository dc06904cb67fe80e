"""`python -m infra.simulator`: a simulator as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from infra.simulator.dialects import Dialect
from infra.simulator.errors import ApiError
from infra.simulator.faults import FaultRule, parse_rule
from infra.simulator.players import Players, parse_players
from infra.simulator.server import SimulatorServer
from infra.simulator.settings import SimulatorSettings

OPTIONS = {
    "--host": "host",
    "--port": "port",
    "--model": "model",
    "--latency": "latency_s",
    "--ttft": "ttft_s",
    "--tpot": "tpot_s",
    "--jitter": "jitter",
    "--slots": "slots",
    "--max-queue": "max_queue",
    "--api-key": "api_key",
    "--max-model-len": "max_model_len",
    "--keepalive": "keepalive_s",
}
KEY = "VLLM_API_KEY"
"""Where vLLM takes its key from, too, since everybody can read a command line."""
DIED = 1


def read_arguments(arguments: list[str] | None = None) -> SimulatorSettings:
    """Settings from the command line; leaves with status 2 and a plain sentence if they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m infra.simulator", description=SimulatorSettings.__doc__)
    for option, field in OPTIONS.items():
        info = SimulatorSettings.model_fields[field]
        metavar = option.rpartition("-")[2].upper()
        parser.add_argument(option, dest=field, metavar=metavar, help=f"{info.description} ({info.default})")
    parser.add_argument("--fault", action="append", default=[], metavar="JSON", help="As for /sim/faults.")
    names = ", ".join(get_args(Dialect))
    parser.add_argument("--dialect", action="append", default=[], metavar="NAME", help=f"Repeatable, of {names}.")
    parser.add_argument("--players", metavar="FILE", help="JSON as for /sim/players.")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    if os.environ.get(KEY):
        given.setdefault("api_key", os.environ[KEY])
    faults = tuple(_fault(parser, text) for text in given.pop("fault"))
    players = _players(parser, given.pop("players", None))
    try:
        return SimulatorSettings(faults=faults, players=players, dialects=given.pop("dialect"), **given)
    except ValidationError as error:
        options = {"dialects": "--dialect", **{field: option for option, field in OPTIONS.items()}}
        wrong = error.errors()[0]
        parser.error(f"{options.get(str(wrong['loc'][0]), wrong['loc'])}: {wrong['msg']}")


def _fault(parser: argparse.ArgumentParser, text: str) -> FaultRule:
    try:
        return parse_rule(text)
    except ApiError as error:
        parser.error(f"--fault: {error.body['error']['message']}")


def _players(parser: argparse.ArgumentParser, file: str | None) -> Players:
    try:
        return parse_players(Path(file).read_bytes()) if file else Players()
    except OSError as error:
        parser.error(f"--players: {file}: {error.strerror}")
    except ApiError as error:
        parser.error(f"--players: {error.body['error']['message']}")


def _die() -> None:
    os._exit(DIED)


async def serve(settings: SimulatorSettings) -> None:
    """Listens until SIGTERM or SIGINT."""
    server = SimulatorServer(settings, die=_die)
    await server.start()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    sys.stdout.write(f"simulator listening on {server.url}\n")
    sys.stdout.flush()
    await stopped.wait()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(serve(read_arguments()))

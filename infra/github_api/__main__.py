"""`python -m infra.github_api [--port 8099] [--writer LOGIN ...]`: serve until stopped, and print what is written."""

from __future__ import annotations

import argparse

from aiohttp import web

from infra.github_api.server import StandIn


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m infra.github_api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--writer", action="append", default=[], metavar="LOGIN", help="who may write; octocat may")
    chosen = parser.parse_args()
    stand_in = StandIn(writers={"octocat", *chosen.writer}, tell=print)
    try:
        web.run_app(stand_in.application(), host=chosen.host, port=chosen.port, access_log=None)
    except OSError as error:
        parser.error(f"--port {chosen.port}: {error.strerror}")


if __name__ == "__main__":
    main()

"""Proxies of the environment, past which our own parts are reached."""

from __future__ import annotations

from collections.abc import Mapping

LOOPBACK = "127.0.0.1,localhost,::1"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def past_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """What lets all clients of a process reach our parts past the proxies of its environment, if it has any."""
    if not any(environ.get(name) or environ.get(name.upper()) for name in PROXIES):
        return {}
    known = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    listed = known if "127.0.0.1" in known.split(",") else ",".join(filter(None, (known, LOOPBACK)))
    return {"no_proxy": listed, "NO_PROXY": listed}


def without_socks(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without proxies by SOCKS, at which Prefect's client fails even where it would not ask them."""
    socks = {name for name in (*PROXIES, *map(str.upper, PROXIES)) if environ.get(name, "").startswith("socks")}
    return {name: value for name, value in environ.items() if name not in socks}

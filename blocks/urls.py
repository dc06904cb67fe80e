"""URLs: as they may be shown, of a model server's endpoints, and the proxy that leads there."""

from __future__ import annotations

import re
import urllib.request
from ipaddress import ip_address
from urllib.parse import urlsplit

_NEXT = re.compile(r",(?=[a-z][a-z0-9+.-]*://)")


def without_credentials(url: str) -> str:
    """The URL, or the comma-separated URLs, without user and password."""
    return ",".join(_shown(one) for one in _NEXT.split(url))


def _shown(url: str) -> str:
    """Without all that stands before the last `@`, since a password that is not quoted may hold anything."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url.rpartition("@")[2]


_VERSION = re.compile(r"v\d+[a-z0-9]*")


def server_root(url: str) -> str:
    """The root of an OpenAI-compatible server, whether its URL was given with or without `/v1`.

    A path with another version in it, such as `/api/paas/v4` or `/v1beta/openai`, is kept: its endpoints lie below.
    """
    return url.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1").rstrip("/")


def api_of(root: str) -> str:
    """What the paths of a server's endpoints are put behind, by its root: `root/v1`, or a root that names a version."""
    named = any(_VERSION.fullmatch(part) for part in urlsplit(root).path.split("/"))
    return root if named else f"{root}/v1"


def proxy_for(url: str) -> str | None:
    """The HTTP proxy of the environment for a URL; none for loopback, which no proxy reaches, and none by SOCKS."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    return proxy if proxy.startswith(("http://", "https://")) else None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

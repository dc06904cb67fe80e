"""HTTP to addresses that others name: only to such as the whole internet reaches, unless they are allowed here.

What is looked at is the address that a socket is made for, after the name was resolved: a look at the URL would be one
at another moment, and a name can mean another address by then. No redirect is followed, and no proxy of the environment
asked, which would connect in our place.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

Networks = Sequence[IPv4Network | IPv6Network]

GLOBAL_UNICAST = IPv6Network("2000::/3")
NOBODYS: Networks = (
    *map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")),  # the last one: the host of a cloud's VM
    IPv6Network("3fff::/20"),
)
"""Further ones that Python 3.11 takes for global (IANA's special-purpose registries; Azure's documentation)."""
REFUSED = "is not an address that the whole internet reaches"
RESOLVING = 128
"""Names that are looked up at once, those among them that nobody waits for any more."""
MAX_ADDRESSES = 16
"""Addresses of a name that are tried."""
RECEIVED = 16 * 1024
"""Bytes of an answer that the system takes before we look: answers without end are read no faster than that."""
NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 behind a translator (RFC 6052): the last 32 bits are the address."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one that the whole internet reaches, and so is every one that stands in it."""
    if any(address in network for network in NOBODYS):
        return False
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    inside = _inside(address)
    if inside:
        return all(map(is_public, inside))
    return address in GLOBAL_UNICAST and address.is_global and not address.is_multicast


def _inside(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that traffic to this one goes to: mapped, translated or tunnelled ones."""
    translated = IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
    found = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()), translated)
    return [one for one in found if one is not None]


def is_allowed(address: IPv4Address | IPv6Address, networks: Networks) -> bool:
    """Whether an address may be connected to: a public one, or one of these networks."""
    plain = getattr(address, "ipv4_mapped", None) or address
    return is_public(address) or any(plain in network for network in networks)


def read_networks(text: str) -> Networks:
    """Networks apart by commas, such as `10.1.0.0/16, fd00::/8`. Raises ValueError."""
    return tuple(ip_network(one.strip()) for one in text.split(",") if one.strip())


class OwnResolver(AbstractResolver):
    """Resolves names as the system does, in threads of its own.

    A name server may hang, and a thread that waits for it cannot be ended: those of the loop are for everybody.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVING, "resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The first addresses of a name. Raises OSError."""
        loop, kind = asyncio.get_running_loop(), socket.SOCK_STREAM
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, kind, flags=socket.AI_ADDRCONFIG)
        )
        return [
            ResolveResult(
                hostname=host, host=str(at[0]), port=int(at[1]), family=of, proto=protocol, flags=socket.AI_NUMERICHOST
            )
            for of, _, protocol, _, at in found[:MAX_ADDRESSES]
        ]

    async def close(self) -> None:
        """Resolve no more; what is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def public_session(networks: Networks, at_once: int) -> aiohttp.ClientSession:
    """A client that connects to nothing else; whoever makes it closes it. Time is bounded by each request.

    A connection to what is not allowed raises PermissionError, as the `os_error` of aiohttp's own error.
    """

    def allowed_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, at = info
        address = ip_address(str(at[0]).partition("%")[0])
        if not is_allowed(address, networks):
            raise PermissionError(errno.EACCES, f"{address} {REFUSED}")
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
        return made

    connector = aiohttp.TCPConnector(
        socket_factory=allowed_socket,
        resolver=OwnResolver(),
        limit=at_once,
        force_close=True,  # deliveries to one target are far apart
        use_dns_cache=False,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        auto_decompress=False,  # nothing is read of an answer
    )

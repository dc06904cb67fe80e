"""The councils as Prefect holds them, mirrored on the record, so that a request can be checked while Prefect is away.

What counts is the council as it stands in Prefect when a run begins; the mirror only refuses early what could not
begin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ValidationError

from blocks.record.events import Record
from blocks.refreshed import Refreshed
from tasks.council.council import CouncilSpec
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Deliberation, DeliberationRequest

KEY = "council."
MIRRORED = "mirrored"
"""Key that says when the mirror was written."""
KEPT_S = 2.0
"""How long a mirror that was read counts."""


class UnknownCouncil(InvalidRequest):
    """A council that there is not."""


class Mirror(NamedTuple):
    """The councils by name, as they stood in Prefect at that time; None where nobody has mirrored any yet."""

    councils: dict[str, CouncilSpec]
    at: datetime | None

    def require(self, name: str) -> CouncilSpec | None:
        """The council of that name, None where nobody has said yet which there are. Raises InvalidRequest."""
        if self.at is not None and name not in self.councils:
            known = ", ".join(sorted(self.councils)) or "none"
            raise UnknownCouncil("council", f"{name!r} is unknown; known are {known}")
        return self.councils.get(name)

    def age_s(self, now: datetime) -> float | None:
        """Seconds since it was written."""
        return None if self.at is None else (now - self.at).total_seconds()


async def write_mirror(record: Record, councils: Mapping[str, CouncilSpec]) -> None:
    """Let the mirror show these councils and no others. Raises RecordError."""
    standing = (await read_mirror(record)).councils
    for name, spec in councils.items():
        if standing.get(name) != spec:
            await record.councils.put(f"{KEY}{name}", spec.model_dump(mode="json"))
    for name in standing.keys() - councils.keys():
        await record.councils.delete(f"{KEY}{name}")
    await record.councils.put(MIRRORED, {"at": datetime.now(UTC).isoformat()})


async def read_mirror(record: Record) -> Mirror:
    """The mirror as it stands; what a later version wrote there is left out. Raises RecordError."""
    found = {}
    for key in await record.councils.names(KEY):
        try:
            found[key.removeprefix(KEY)] = CouncilSpec.from_record(await record.councils.read(key))
        except ValidationError:
            continue
    at = (await record.councils.read(MIRRORED) or {}).get("at")
    return Mirror(found, datetime.fromisoformat(at) if isinstance(at, str) else None)


async def require_known(record: Record, names: Iterable[str]) -> None:
    """Raise InvalidRequest where one of the councils is not known; RecordError. Where none was mirrored yet all are."""
    mirror = await read_mirror(record)
    for name in names:
        mirror.require(name)


class Councils:
    """The mirror, read again where what is kept of it is old."""

    def __init__(self, record: Record) -> None:
        self._mirror = Refreshed(lambda: read_mirror(record), KEPT_S)

    async def mirror(self) -> Mirror:
        """The mirror of the last two seconds. Raises RecordError."""
        return await self._mirror.get()

    async def newest(self) -> Mirror:
        """The mirror as it is now. Raises RecordError."""
        return await self._mirror.anew()

    async def check(self, asked: DeliberationRequest) -> None:
        """Raise InvalidRequest where the council is not known, or cannot be asked this, also as it is now."""
        try:
            _check(await self.mirror(), asked)
        except InvalidRequest:
            _check(await self.newest(), asked)


def _check(mirror: Mirror, asked: DeliberationRequest) -> None:
    spec = mirror.require(asked.council)
    if spec is not None:  # else the run itself will tell
        Deliberation.plan("checked", asked, spec)

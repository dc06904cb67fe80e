"""What model servers were found to take otherwise, kept for a day: by a server's URL and a model's name.

One note of the installation holds all of it. Whoever learns it from a server's refusals writes it, the driver of a
deliberation reads it while it asks Prefect for the servers' blocks, and the members' hosts are told by their
assignments. So no call waits for it. It is a hint: where it is lost, a server's refusals tell it again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from blocks.dialect import TELL_S, Dialect, read_dialect
from blocks.record.installation import BUCKET

if TYPE_CHECKING:
    from blocks.record.client import Keys
    from blocks.record.events import Record

KEY = "dialects"
PATIENCE_S = 2.0
"""For writing a note, on which an answer waits."""
TRIES = 5
"""How often a note is written that others write at the same time."""

Dialects = Mapping[str, Mapping[str, Dialect]]
"""By a server's URL and a model's name."""
_Entries = dict[str, dict[str, Any]]
_AWAY = (nats.errors.Error, TimeoutError, OSError)

_log = logging.getLogger(__name__)


async def noted_dialects(record: Record) -> Dialects:
    """What is noted and still believed; nothing where it cannot be read. One question to the server."""
    try:
        message = await record.jetstream.get_msg(f"KV_{BUCKET}", subject=f"$KV.{BUCKET}.{KEY}")
    except _AWAY:
        return {}
    found: dict[str, dict[str, Dialect]] = {}
    for url, models in _believed(message.data).items():
        found[url] = {model: read_dialect(entry["differences"]) for model, entry in models.items()}
    return found


async def note_dialect(record: Record, url: str, model: str, dialect: Dialect) -> None:
    """Keep how a server takes a model. That it takes all of it is only kept where something else stands.

    Raises nothing where the record is away: an answer that is there does not fail for a hint.
    """
    entry = {"differences": dialect.differences, "at": datetime.now(UTC).isoformat()}
    try:
        async with asyncio.timeout(PATIENCE_S):
            keys = await record.jetstream.key_value(BUCKET)
            for _ in range(TRIES):
                if await _merged(keys, url, model, entry):
                    return
    except _AWAY as error:
        _log.warning("how %s takes %s could not be noted: %s", url, model, str(error) or type(error).__name__)


async def _merged(keys: Keys, url: str, model: str, entry: dict[str, Any]) -> bool:
    """Whether the entry stands, or needs not; False where another one's was written just now."""
    data, revision = await _standing(keys)
    entries = _believed(data)
    if not entry["differences"] and model not in entries.get(url, {}):
        return True
    entries.setdefault(url, {})[model] = entry
    value = json.dumps(entries).encode()
    try:
        await (keys.create(KEY, value) if revision is None else keys.update(KEY, value, last=revision))
    except KeyWrongLastSequenceError:
        return False
    return True


async def _standing(keys: Keys) -> tuple[bytes | None, int | None]:
    """What stands in the note, and its revision; None where there is none."""
    try:
        entry = await keys.get(KEY)
    except KeyNotFoundError:
        return None, None
    return entry.value, entry.revision


def _believed(data: bytes | None) -> _Entries:
    """The entries of a note that are not too old; what has another shape, such as a later version's, is passed over."""
    try:
        told = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    found: _Entries = {}
    for url, models in told.items() if isinstance(told, dict) else ():
        kept = {model: entry for model, entry in models.items() if _fresh(entry)} if isinstance(models, dict) else {}
        if kept:
            found[url] = kept
    return found


def _fresh(entry: Any) -> bool:
    """Whether it is an entry of the last day; the clocks of hosts may differ by less than would matter."""
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(entry["at"])
        return isinstance(entry["differences"], dict) and abs(age) < timedelta(seconds=TELL_S)
    except (LookupError, TypeError, ValueError):
        return False

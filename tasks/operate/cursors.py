"""How far a look at something long came, noted on the record: what one run cannot look at, the next ones do."""

from __future__ import annotations

from blocks.record.events import Record
from blocks.record.installation import note, read_note


async def read_cursor(record: Record, name: str) -> int:
    """Where the last look ended; 0 where none did, or the note is none of ours. Raises RecordError."""
    text = await read_note(record, name) or ""
    return int(text) if text.isascii() and text.isdigit() else 0


async def note_cursor(record: Record, name: str, at: int) -> None:
    """Note where a look ended. Raises RecordError."""
    await note(record, name, str(at))

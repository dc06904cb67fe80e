"""The status of each deliberation and item: a key of a bucket, merged by compare-and-set."""

from __future__ import annotations

from blocks.record.envelope import Body, Event, stream_of
from blocks.record.json_keys import JsonKeys


class Statuses(JsonKeys):
    """The bucket of statuses. All methods raise RecordError."""

    async def merge(self, key: str, change: Body) -> bool:
        """Set some fields of a key.

        A key that is not there is made only by a change that has a status, since nobody could read one without; False
        where nothing was written.
        """

        def merged(standing: Body | None) -> Body | None:
            if standing is None and "status" not in change:
                return None
            return {**(standing or {}), **change}

        return await self.change(key, merged)

    async def purge(self, event: Event) -> None:
        """Let a key go for good, without a mark in its place, unless it was written again since this event."""
        await self._patience.outlast(
            lambda: self._jetstream.purge_stream(
                stream_of(event.subject), seq=event.sequence + 1, subject=event.subject
            )
        )

"""The end of a stage, as it stands on the record: what counts of it, and who is called for the next one."""

from __future__ import annotations

from tasks.council.base import Frozen, Name


class Closing(Frozen):
    """Body of `deliberations.<id>.closed.<item>.<stage>`.

    `proposals` says by author in which stage its present text stands, best first as far as is known; `ballots` whose
    ballots count (of the last review until now), `called` who is asked in the next stage, `skipped` why nobody is;
    `epoch` is of the run that closed it.
    """

    task_id: Name
    item: Name
    stage: Name
    proposals: dict[Name, Name]
    ballots: tuple[Name, ...] = ()
    called: tuple[Name, ...] = ()
    skipped: str | None = None
    epoch: int


def salt_of(deliberation_id: str, item_id: str, stage: str) -> str:
    """What labels, marks and orders of one item's stage are drawn with."""
    return f"{deliberation_id}:{item_id}:{stage}"

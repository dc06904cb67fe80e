"""The task runner of our flows: the one that the block `ray-agents` names, whoever starts the flow.

A flow names its task runner when it is imported, long before anybody has edited the block. This one asks for the block
when a flow run begins, so that an edit counts for the next run on every kind of worker, and in no other place.
"""

from __future__ import annotations

from copy import copy
from typing import Any, NoReturn, TypeVar, cast

from prefect import Flow
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner
from prefect.utilities.annotations import quote
from prefect_ray import RayTaskRunner

from blocks.documents import AtHand, fresh, fresh_default
from blocks.ray_agents import RayAgents

T = TypeVar("T")


def untraversed(value: T) -> T:
    """A task's parameter that Prefect hands over as it is.

    It looks for futures and states in all others, at each of their parts and several times: 0.05 s for the session of a
    council of 64. (`quote`, in `prefect/utilities/annotations.py`)
    """
    return cast(T, quote(value))


async def with_agents(flow: Flow[Any, Any], at_hand: AtHand = None) -> Flow[Any, Any]:
    """The flow on the block's task runner, where many run on one loop: the block is awaited, and holds up nobody.

    It is a copy of the object: Prefect's `with_options` makes the schema of the parameters anew, which takes our nested
    forms 50 ms of processor, in every run. A flow without agents is left as it is.

    Raises BlockMissing, BlockUnusable and PrefectUnavailable.
    """
    if not isinstance(flow.task_runner, BlockTaskRunner):
        return flow
    chosen = copy(flow)
    chosen.task_runner = (await fresh(RayAgents, at_hand=at_hand)).task_runner()
    return chosen


class BlockTaskRunner(TaskRunner[PrefectFuture[Any]]):
    """Stands in for the block's task runner until a flow run begins; then that one takes its place.

    It waits for Prefect where it stands: whoever runs several flows on one loop takes `with_agents` before.

    Prefect's engine works with what `__enter__` returns (`prefect/flow_engine.py`, `setup_run_context`).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._chosen: RayTaskRunner[Any] | None = None

    def duplicate(self) -> BlockTaskRunner:
        """Another one, for another flow run."""
        return BlockTaskRunner()

    def __enter__(self) -> RayTaskRunner[Any]:  # type: ignore[override]  # the engine takes whatever it is
        """The block's task runner, started. Raises BlockMissing, PrefectUnavailable and AgentsUnavailable."""
        self._chosen = fresh_default(RayAgents).task_runner()
        entered: RayTaskRunner[Any] = self._chosen.__enter__()
        return entered

    def __exit__(self, *raised: Any) -> None:
        """End the block's."""
        if self._chosen is not None:
            self._chosen.__exit__(*raised)

    def submit(self, *_arguments: Any, **_options: Any) -> NoReturn:
        """Nothing is submitted to this one. Raises RuntimeError."""
        raise RuntimeError("the task runner of the block is the one to submit to, within a flow run")

"""LangGraph with its SQLite checkpointer: a thread for each question, so many calls at once as there are slots."""

from __future__ import annotations

import asyncio
import json
import operator
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from deployments.bench.batch.peers.plain_client import opened_session
from deployments.bench.batch.peers.protocol import Job, Work, serve
from deployments.bench.batch.workload import Questions, call_of

AHEAD = 2
"""Councils that are begun, in windows: the call window is full while others wait for their slowest member."""
RUN = "langgraph"


class Council(TypedDict):
    """The graph's state."""

    row: int
    proposals: Annotated[list[dict[str, Any]], operator.add]
    winner: str


class Seat(TypedDict):
    """What one member's node gets."""

    row: int
    member: int


@asynccontextmanager
async def graphs(job: Job) -> AsyncGenerator[Work, None]:
    """One compiled graph, connections and database open."""
    os.environ["LANGSMITH_TRACING"] = "false"  # a user's own setting would send the prompts away
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import Send

    from blocks.chat import chat_payload
    from deployments.bench.workload import proposal_of
    from tasks.council.council import CouncilSpec
    from tasks.council.proposal import Proposal
    from tasks.council.voting.checks import Checks, rank_proposals

    council = CouncilSpec.model_validate(job.council)
    questions = Questions(council)
    slots = asyncio.Semaphore(job.slots)
    begun = asyncio.Semaphore(AHEAD * max(1, job.slots // len(council.members)))
    answered = 0

    def seats(state: Council) -> list[Any]:
        return [Send("propose", Seat(row=state["row"], member=member)) for member in range(len(council.members))]

    async def propose(seat: Seat) -> dict[str, Any]:
        nonlocal answered
        member = council.members[seat["member"]]
        call = call_of(RUN, member, questions.item(seat["row"]))
        body = json.dumps(chat_payload(call, job.model, None, False, {})).encode()
        headers = {"X-Request-Id": call.request_id, "Content-Type": "application/json"}
        async with slots, session.post(job.endpoint, data=body, headers=headers) as reply:
            reply.raise_for_status()
            answer = json.loads(await reply.read())
        answered += 1
        return {"proposals": [proposal_of(member, answer).model_dump()]}

    async def decide(state: Council) -> dict[str, Any]:
        proposals = [Proposal.model_validate(proposal) for proposal in state["proposals"]]
        ranked = rank_proposals(proposals, Checks(questions.item(state["row"])), RUN)
        return {"winner": ranked[0].proposal.author_id}

    async def one(graph: Any, row: int) -> None:
        try:
            state = {"row": row, "proposals": [], "winner": ""}
            await graph.ainvoke(state, {"configurable": {"thread_id": f"{RUN}-{row}"}})
        finally:
            begun.release()

    builder = StateGraph(Council)
    builder.add_node("propose", propose)
    builder.add_node("decide", decide)
    builder.add_conditional_edges(START, seats, ["propose"])
    builder.add_edge("propose", "decide")
    builder.add_edge("decide", END)
    async with (
        opened_session() as session,
        AsyncSqliteSaver.from_conn_string(str(Path(job.folder) / "langgraph.sqlite")) as saver,
    ):
        await saver.setup()
        graph = builder.compile(checkpointer=saver)

        async def work() -> int:
            async with asyncio.TaskGroup() as group:
                for row in range(job.rows):
                    await begun.acquire()
                    group.create_task(one(graph, row))
            return answered

        yield work


if __name__ == "__main__":
    serve(graphs)

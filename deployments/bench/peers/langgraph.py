"""LangGraph as its own documentation has it: fan-out by `Send` to one node a member, with a durable checkpointer."""

from __future__ import annotations

import json
import operator
import os
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from deployments.bench.peers.peer import Bench, PeerMissing
from deployments.bench.samples import Sample, now
from deployments.bench.workload import item, proposal_of
from tasks.council.council import Member
from tasks.council.proposal import Proposal
from tasks.council.voting.checks import Checks, rank_proposals


class Council(TypedDict):
    """The graph's state."""

    run_id: str
    members: list[dict[str, Any]]
    proposals: Annotated[list[dict[str, Any]], operator.add]
    winner: str


class Seat(TypedDict):
    """What one member's node gets."""

    run_id: str
    member: dict[str, Any]


OPTIONS = {
    "graph": "StateGraph: Send to a node `propose` for each member, then a node `decide`; compiled once",
    "checkpointer": "AsyncSqliteSaver on a file (WAL), set up before; durability `async`, its default",
    "client": "the floor's aiohttp session; connections opened before the clock starts",
    "decision": "Conclave's own checks rank the proposals, in the node `decide`",
    "max_concurrency": "not bounded",
    "tracing": "off",
    "does_not_do": "no orchestrator's server, no other process, no deadline or quorum, no retries",
}


class LangGraph:
    """One compiled graph for the whole run; a thread of its own for each council."""

    title = "LangGraph"
    packages = ("langgraph", "langgraph-checkpoint-sqlite", "langchain-core", "aiosqlite", "aiohttp")
    options = OPTIONS

    def __init__(self, bench: Bench, graph: Any) -> None:
        self._bench, self._graph = bench, graph

    async def sample(self, size: int) -> Sample:
        """One council."""
        run_id = f"langgraph-{uuid.uuid4()}"
        members = [member.model_dump() for member in self._bench.council.sized(size).members]
        await self._bench.server.open(size)
        started = now()
        council = {"run_id": run_id, "members": members, "proposals": [], "winner": ""}
        state = await self._graph.ainvoke(council, {"configurable": {"thread_id": run_id}})
        ended = now()
        if len(state["proposals"]) != size or not state["winner"]:
            raise RuntimeError(f"LangGraph ended with {len(state['proposals'])} of {size} proposals")
        return await self._bench.server.sample(run_id, started, started, ended)


@asynccontextmanager
async def langgraph(bench: Bench) -> AsyncGenerator[LangGraph, None]:
    """LangGraph; raises PeerMissing where it is not installed."""
    os.environ["LANGSMITH_TRACING"] = "false"  # a user's own setting would send the prompts away
    try:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
        from langgraph.graph import END, START, StateGraph
        from langgraph.types import Send
    except ImportError:
        raise PeerMissing("langgraph is not installed; `make bench` installs it (requirements-bench.lock)") from None

    def seats(state: Council) -> list[Any]:
        return [Send("propose", Seat(run_id=state["run_id"], member=member)) for member in state["members"]]

    async def propose(seat: Seat) -> dict[str, Any]:
        member = Member.model_validate(seat["member"])
        request_id = f"{seat['run_id']}:{member.agent_id}"
        answer = json.loads(await bench.server.ask(request_id, bench.server.body(member, request_id)))
        return {"proposals": [proposal_of(member, answer).model_dump()]}

    async def decide(state: Council) -> dict[str, Any]:
        proposals = [Proposal.model_validate(proposal) for proposal in state["proposals"]]
        return {"winner": rank_proposals(proposals, Checks(item()), state["run_id"])[0].proposal.author_id}

    builder = StateGraph(Council)
    builder.add_node("propose", propose)
    builder.add_node("decide", decide)
    builder.add_conditional_edges(START, seats, ["propose"])
    builder.add_edge("propose", "decide")
    builder.add_edge("decide", END)
    async with AsyncSqliteSaver.from_conn_string(str(bench.folder / "langgraph.sqlite")) as saver:
        await saver.setup()
        yield LangGraph(bench, builder.compile(checkpointer=saver))

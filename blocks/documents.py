"""Blocks by name, and their versions, so that a council does not ask Prefect for its server once a member.

Names are as users type them; what Prefect has them under is `blocks/names.py`'s.

The driver asks Prefect for a server's block in every run and hands its version to the agent tasks; a host that
has that version asks nobody. So an edit takes effect in the next run, and no secret travels with a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from blocks import names
from blocks.connections import Close, shared
from blocks.council import Council
from blocks.exceptions import BlockMissing, BlockUnusable
from blocks.jetstream import JetStream
from blocks.ownership import check, other_prefixes
from blocks.prefect_api import prefect_named
from blocks.record.events import Record
from blocks.record.leases import Leases
from tasks.council.problems import first_problem

B = TypeVar("B", bound=Block)

DEFAULT = "default"

Documents = Mapping[tuple[str, str], BlockDocument]
"""Documents by the name of their type, and their own as Prefect has it."""
AtHand = asyncio.Task[Documents] | None
"""Documents that are being read already, for whoever needs one of them."""


async def load(kind: type[B], name: str = DEFAULT, version: str | None = None) -> B:
    """The block of that kind and name, from memory if it has that version. Raises BlockMissing."""
    kept: dict[Any, tuple[str, B]] = await shared("blocks", _keep)
    if (kind, name) not in kept or kept[kind, name][0] != version:
        kept[kind, name] = await versioned(kind, name)
    return kept[kind, name][1]


async def fresh(kind: type[B], name: str = DEFAULT, at_hand: AtHand = None) -> B:
    """The block as Prefect holds it now. Raises BlockMissing."""
    return (await versioned(kind, name, at_hand))[1]


def fresh_default(kind: type[B]) -> B:
    """The default block as Prefect holds it now, where nothing can be awaited. Raises BlockMissing."""
    with prefect_named(), _missing_named(kind, DEFAULT), get_client(sync_client=True) as client:
        document = client.read_block_document_by_name(names.stored(DEFAULT), kind.get_block_type_slug())
    return _validated(kind, DEFAULT, document)


async def versioned(kind: type[B], name: str, at_hand: AtHand = None) -> tuple[str, B]:
    """The block as Prefect holds it now, and its version. Raises BlockMissing or PrefectUnavailable."""
    if (other := await prefix_of_others(name)) is not None:
        slug = kind.get_block_type_slug()
        raise BlockMissing(f"no block {slug}/{name}: names that begin with {other}- are another installation's here")
    document = None if at_hand is None else (await asyncio.shield(at_hand)).get(_key(kind, name))
    if document is None:
        document = await _document(kind, name)
    return f"{document.id}:{document.updated}", _validated(kind, name, document)


async def together(*wanted: tuple[type[Block], str]) -> Documents:
    """The documents of these blocks, as far as there are any, asked for in one question.

    Each question takes Prefect's server about 10 ms, however much it asks for. Raises PrefectUnavailable.
    """
    asked = {
        "block_types": {"slug": {"any_": sorted({kind.get_block_type_slug() for kind, _ in wanted})}},
        "block_documents": {"name": {"any_": sorted({names.stored(name) for _, name in wanted})}},
        "include_secrets": True,
    }
    with prefect_named():
        async with get_client() as client:
            answer = await client.request("POST", "/block_documents/filter", json=asked)
    found = [BlockDocument.model_validate(document) for document in answer.json()]
    return {(document.block_type_name or "", document.name or ""): document for document in found}


def _key(kind: type[Block], name: str) -> tuple[str, str]:
    return kind.get_block_type_name(), names.stored(name)


async def _document(kind: type[Block], name: str) -> BlockDocument:
    """The document of a block. Raises BlockMissing and PrefectUnavailable."""
    with prefect_named(), _missing_named(kind, name):
        async with get_client() as client:
            return await client.read_block_document_by_name(names.stored(name), kind.get_block_type_slug())


@contextmanager
def _missing_named(kind: type[Block], name: str) -> Generator[None, None, None]:
    """Raise BlockMissing where Prefect has no such block."""
    try:
        yield
    except ObjectNotFound as error:
        slug = kind.get_block_type_slug()
        told = "it is made in Prefect's UI, under Blocks; `conclave up` makes the defaults"
        raise BlockMissing(f"no block {slug}/{names.stored(name)}: {told}") from error


def _validated(kind: type[B], name: str, document: BlockDocument) -> B:
    """The block of a document. Raises BlockUnusable."""
    slug = kind.get_block_type_slug()
    try:
        return kind.model_validate(kind._from_block_document(document))
    except ValidationError as error:
        problem = first_problem(error)
        raise BlockUnusable(f"block {slug}/{names.stored(name)}: {problem.field}: {problem.text}") from None


async def save(block: Block, name: str) -> None:
    """Save a block under its name, over the one that stands there.

    Raises BlockUnusable where the name begins as those of another installation in this Prefect.
    """
    if (other := await prefix_of_others(name)) is not None:
        raise BlockUnusable(f"{name!r}: names that begin with {other}- are another installation's in this Prefect")
    await block.save(names.stored(name), overwrite=True)


async def prefix_of_others(name: str) -> str | None:
    """The prefix of another installation in this Prefect that a name begins with; None for one of ours."""
    if "-" not in name:
        return None
    theirs = [other for other in await _prefixes_to_avoid() if name.startswith(names.carrying(other, ""))]
    return theirs[0] if theirs else None


async def open_record() -> Record:
    """The record of the default JetStream block, which a process reads once, and whose mark it compares once.

    Raises OtherInstallation where Prefect's names belong to another installation than the record.
    """
    return await shared("record", _open_record)


async def open_leases() -> Leases:
    """The leases that this loop's work holds, renewed from a thread of their own."""
    return await shared("leases", _open_leases)


async def council_names() -> list[str]:
    """Names of all councils of ours that Prefect holds. Raises PrefectUnavailable or PrefectRefused."""
    documents = await _council_documents()
    stored = [document.name for document in documents if document.name]
    return names.ours(stored, await _prefixes_to_avoid())


async def all_councils() -> dict[str, Council]:
    """The councils of ours that Prefect holds, by name; one that cannot be used is left out.

    Raises PrefectUnavailable or PrefectRefused.
    """
    documents = {document.name: document for document in await _council_documents() if document.name}
    found = {}
    for name in names.ours(documents, await _prefixes_to_avoid()):
        try:
            found[name] = _validated(Council, name, documents[names.stored(name)])
        except BlockUnusable:
            continue
    return found


async def _council_documents() -> list[BlockDocument]:
    """The documents of all councils, whoever's they are; none where Prefect does not know the type yet."""
    with prefect_named():
        async with get_client() as client:
            try:
                return await client.read_block_documents_by_type(Council.get_block_type_slug())
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.NOT_FOUND:
                    raise
                return []


async def _prefixes_to_avoid() -> list[str]:
    """Prefixes that tell others' names from ours; none where ours carry one: none may be the beginning of another."""
    return [] if names.prefix() else await other_prefixes()


async def _read_jetstream() -> tuple[JetStream, Close]:
    return await fresh(JetStream), _nothing


async def _open_record() -> tuple[Record, Close]:
    record = await (await shared("jetstream", _read_jetstream)).record()
    await check(record)
    return record, _nothing


async def _open_leases() -> tuple[Leases, Close]:
    leases = Leases((await shared("jetstream", _read_jetstream)).record)
    await leases.open()
    return leases, leases.close


async def _keep() -> tuple[dict[Any, Any], Close]:
    return {}, _nothing


async def _nothing() -> None:
    """Nothing to close."""

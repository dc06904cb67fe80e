"""What `conclave up` does to the blocks of model servers, on blocks and notes in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("importable_prefect")

OURS, MOVED, USERS = "http://127.0.0.1:8000", "http://127.0.0.1:8001", "http://gpu:8000"


class Installation:
    """Blocks by name, the record's notes, and what `up` said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from deployments.provisioning import blocks

        self.blocks: dict[str, Any] = {}
        self.notes: dict[str, str] = {}
        self.said: list[str] = []
        for name, stand_in in (
            ("_found", self._found),
            ("save", self._save),
            ("note", self._note),
            ("read_note", self._read_note),
            ("model_key", lambda *_: None),
            ("environment", lambda status: {"VLLM_URL": status.llm}),
        ):
            monkeypatch.setattr(blocks, name, stand_in)

    async def up(self, url: str, take_over: bool = False) -> dict[str, str]:
        """Point the servers of a council at a stack whose own is there; where each is now."""
        from blocks.council import Council
        from deployments.provisioning.blocks import _point_servers

        members = [{"agent_id": server, "role": "DEV", "server": server} for server in ("default", "guarded")]
        told: Any = SimpleNamespace(llm=url, model="m", parts={"llm": SimpleNamespace(state="running")})
        nothing: Any = None
        councils = {"security": Council(members=members)}
        await _point_servers(nothing, councils, told, nothing, self.said.append, take_over)
        return {name: block.base_url for name, block in self.blocks.items()}

    async def _found(self, _kind: Any, otherwise: Any, name: str) -> Any:
        return self.blocks.get(name, otherwise)

    async def _save(self, block: Any, name: str) -> None:
        self.blocks[name] = block

    async def _note(self, _record: Any, key: str, value: str) -> None:
        self.notes[key] = value

    async def _read_note(self, _record: Any, key: str) -> str | None:
        return self.notes.get(key)


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch) -> Installation:
    """One that nothing was made in."""
    return Installation(monkeypatch)


async def test_a_server_of_its_own_is_made_and_follows_the_stack(installation: Installation) -> None:
    """Where there was none; until a user points it elsewhere."""
    assert await installation.up(OURS) == {"default": OURS, "guarded": OURS}
    assert await installation.up(MOVED) == {"default": MOVED, "guarded": MOVED}
    installation.blocks["guarded"].base_url = USERS
    assert await installation.up(OURS) == {"default": OURS, "guarded": USERS}
    assert installation.said == [f"model server guarded stays at {USERS}, which a user gave it"]


@pytest.mark.parametrize("take_over", [False, True])
@pytest.mark.parametrize("url", [USERS, OURS])
async def test_one_that_a_user_made_before_stays(installation: Installation, url: str, take_over: bool) -> None:
    """With its key and model, also at the stack's own address, and where names are taken over."""
    from blocks.vllm_server import VLLM

    installation.blocks["guarded"] = VLLM(base_url=url, api_key="theirs", model="theirs")
    for address in (OURS, MOVED):
        assert await installation.up(address, take_over) == {"default": address, "guarded": url}
    block = installation.blocks["guarded"]
    assert (block.api_key.get_secret_value(), block.model) == ("theirs", "theirs")

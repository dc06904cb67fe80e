"""A council of a real model on a real vLLM, as a user asks it: that it can be read, and not that it is right.

SmolLM2-135M is wrong about most things; what is held here is what a user of any model relies on: closed answers and
ballots that can be read, plain calls beside the council, and a decision that says who was asked. `make test-model`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.deployments.commands import OF_THE_STACK, Ended, conclave

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1_500)]

ROOT = Path(__file__).parents[2]
MODEL = ROOT / ".venv-vllm" / "smollm2"
COUNCILS = ROOT / "infra" / "vllm" / "council.yaml"
QUESTIONS = ROOT / "docs" / "examples" / "questions-20.jsonl"


@pytest_asyncio.fixture(scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[dict[str, str], None]:
    """A stack of its own with the small model behind it, and its councils; the variables that commands need."""
    assert MODEL.is_dir(), "`make vllm` makes the small model"
    variables = {
        **dict.fromkeys(OF_THE_STACK, ""),
        "CONCLAVE_HOME": str(tmp_path_factory.mktemp("model") / "home"),
        "CONCLAVE_VLLM": str(ROOT / "infra" / "vllm" / "cpu.sh"),
        "CONCLAVE_VLLM_ARGS": "--max-model-len 8192",
        "CONCLAVE_START_TIMEOUT": "600",
        "VLLM_MODEL": str(MODEL),
    }
    try:
        for asked in (("up", "--detach", "--no-worker"), ("councils", "apply", str(COUNCILS))):
            ended = await conclave(*asked, **variables)
            assert ended.code == 0, ended.err
        yield variables
    finally:
        await conclave("down", **variables)


async def asked(home: dict[str, str], *arguments: str) -> tuple[Ended, dict[str, Any]]:
    """A command's end, and what it printed as JSON."""
    ended = await conclave(*arguments, "--json", **home)
    assert ended.out, ended.err
    return ended, json.loads(ended.out)


async def test_twenty_questions_are_answered_so_that_they_can_be_read(home: dict[str, str]) -> None:
    """By the council, alone, and in waves: closed answers at least 99 of 100, ballots at least 95."""
    ended, found = await asked(home, "evaluate", str(QUESTIONS), "--council", "questions")
    readings = found["readings"]
    print({arm["arm"]: (arm["accuracy"]["count"], arm["accuracy"]["of"]) for arm in found["arms"]}, readings)
    assert ended.code in (0, 3), ended.err
    assert (found["engine"], found["questions"]) == ("vllm", 20)
    assert [arm["arm"] for arm in found["arms"]] == [
        *("bare", "bare-5", "single", "majority", "rank", "synthesize", "escalate")
    ]
    assert readings["proposals"]["of"] == 90
    assert readings["proposals"]["value"] >= 0.99
    assert readings["bare"]["value"] >= 0.99
    assert readings["ballots"]["value"] >= 0.95
    assert found["problems"] == []


async def test_a_council_decides_an_open_task(home: dict[str, str]) -> None:
    """With whole sentences of a model, and each member told."""
    ended, found = await asked(
        home, "deliberate", "--local", "Name three fruits.", "--council", "small", "--strategy", "escalate"
    )
    assert ended.code in (0, 3), ended.err
    assert (found["status"], found["engine"]) == ("COMPLETED", "vllm")
    assert found["decision"]
    assert found["total_agents"] + found["not_asked"] == len(found["members"]) == 5

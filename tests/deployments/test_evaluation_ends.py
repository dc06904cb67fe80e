"""What `conclave evaluate` says at its end, of an evaluation that nobody runs."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

RUN = "0c5b7c2e-1111-4222-8333-444455556666"


def evaluation(new_id: str) -> Any:
    """Figures without a score."""
    from tasks.council.council import CouncilSpec, Member
    from tasks.council.evaluation.arms import Scoresheet
    from tasks.council.models import Deliberation, DeliberationRequest

    council = CouncilSpec(name="dev", members=(Member(agent_id="m1", role="DEV"),))
    return Scoresheet().evaluation(Deliberation.plan(new_id, DeliberationRequest(task="a"), council))


@pytest.fixture
def conclave(importable_prefect: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`conclave evaluate`, whose stack is said to be up, and whose flow ends at once."""
    import deployments.cli.evaluation as verb
    import deployments.evaluation as module
    from deployments.cli import app

    @asynccontextmanager
    async def nothing(*_: Any) -> Any:
        yield SimpleNamespace(installation="x")

    async def planned(_record: Any, _asked: Any, deliberation_id: str) -> Any:
        return SimpleNamespace(id=deliberation_id)

    async def record() -> Any:
        return SimpleNamespace(installation="x")

    async def flow(*_: Any, deliberation_id: str, **__: Any) -> Any:
        async def result() -> Any:
            return evaluation(deliberation_id), SimpleNamespace(scores=[])

        details = SimpleNamespace(flow_run_id=UUID(RUN))
        return SimpleNamespace(is_cancelled=lambda: False, aresult=result, state_details=details)

    async def with_agents(_flow: Any) -> Any:
        return flow

    async def begun(*_: Any) -> None:
        """Nobody waits for a place to start in."""

    stand_ins = {"prefect_clients": nothing, "connections": nothing, "watching": nothing, "cancellable": nothing}
    for name, stand_in in {**stand_ins, "open_record": record, "planned": planned, "begun": begun}.items():
        monkeypatch.setattr(module, name, stand_in)
    monkeypatch.setattr(module, "with_agents", with_agents)
    monkeypatch.setattr(verb, "running_stack", lambda: SimpleNamespace(home=str(tmp_path), database="postgresql"))
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"task": "a", "check": {"type": "exact", "answer": "a"}}))
    return lambda *more: CliRunner().invoke(app, ["evaluate", str(path), *more])


@pytest.mark.parametrize("one", ["eval-1", "Eval_1"])
def test_the_report_is_named_and_where_it_is(conclave: Any, one: str) -> None:
    """As `deliberate` does, beside the answer: on standard error."""
    from prefect.settings import PREFECT_UI_URL, temporary_settings

    from tasks.artifacts.keys import artifact_key

    with temporary_settings({PREFECT_UI_URL: "http://ui.example"}):
        ended = conclave("--id", one)

    assert ended.exit_code == 0, ended.output
    (told,) = [line for line in ended.stderr.splitlines() if "Report" in line]
    assert told.startswith(f"Report in Prefect's UI, artifact {artifact_key('evaluation', one)}: http://ui.example/")
    assert told.endswith(f"/flow-run/{RUN}")
    assert "Report" not in ended.stdout


def test_json_is_one_document(conclave: Any) -> None:
    """Nothing beside it."""
    ended = conclave("--id", "eval-1", "--json")

    assert json.loads(ended.stdout)["id"] == "eval-1"
    assert "Report" not in ended.stderr


def test_an_output_that_cannot_be_written_is_told_before_anything_is_asked(conclave: Any, tmp_path: Path) -> None:
    """A folder, or one that is not there."""
    for output in (tmp_path, tmp_path / "none" / "x.csv"):
        ended = conclave("--id", "eval-1", "--output", str(output))
        assert ended.exit_code == 2
        assert "output: " in ended.stderr
        assert "Report" not in ended.stderr


def test_a_problem_in_the_scores_is_plain_text(conclave: Any, tmp_path: Path) -> None:
    """What a predicate raises may repeat a model's text, and whoever shows the file has a terminal."""
    from deployments.evaluation import write_scores
    from tasks.council.evaluation.arms import Score, Scoresheet
    from tasks.council.proposal import Usage

    sheet = Scoresheet()
    sheet.scores = [Score("q", "bare", False, True, Usage(), 1, "ValueError: \x1b[31mred")]
    write_scores(sheet, tmp_path / "scores.csv")
    assert "\x1b" not in (tmp_path / "scores.csv").read_text()

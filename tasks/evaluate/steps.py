"""The steps of an evaluation: its questions from a file, their scores from the record, and what Prefect shows of it."""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from typing import Any

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.settings.context import get_current_settings
from prefect.states import Completed

from blocks.documents import open_record
from blocks.record import subjects
from blocks.record.events import Record
from tasks.artifacts.keys import artifact_key
from tasks.council.decisions import ItemResult
from tasks.council.engines import SIMULATOR
from tasks.council.evaluation.answered import Answered, bare_answers
from tasks.council.evaluation.arms import Evaluation, Scoresheet, reached
from tasks.council.evaluation.readings import texts_of
from tasks.council.evaluation.report import arm_table, report
from tasks.council.exceptions import InvalidRequest
from tasks.council.models import Deliberation, Item, Status, check_id
from tasks.deliberations.read import answers_of, plan_of
from tasks.deliberations.result import progress_of
from tasks.evaluate.question_files import QuestionFile

OTHER_PARAMETERS = 4096
"""Bytes that are left for the parameters of a run beside its agenda."""
WAVES_SUFFIX = "-escalate"
READ_AT_ONCE = 64
"""Items whose answers are read from the record side by side."""


def in_waves(deliberation_id: str) -> str:
    """The id under which the same questions are asked in waves. Raises InvalidRequest where it would be too long."""
    try:
        return check_id(f"{deliberation_id}{WAVES_SUFFIX}")
    except InvalidRequest:
        most = 64 - len(WAVES_SUFFIX)
        raise InvalidRequest("deliberation_id", f"an evaluation's has at most {most} characters") from None


async def check_size(questions: QuestionFile) -> None:
    """Whether Prefect takes them as parameters of one run. Raises InvalidRequest."""
    limit, size = get_current_settings().server.api.max_parameter_size, await asyncio.to_thread(_size, questions)
    if 0 < limit < size + OTHER_PARAMETERS:
        raise InvalidRequest(
            "questions",
            f"{questions.path.name} comes to {size:,} bytes, and Prefect takes {limit:,} for one run: split the file, "
            "or set PREFECT_SERVER_API_MAX_PARAMETER_SIZE for its server and here",
        )


def _size(questions: QuestionFile) -> int:
    return len(json.dumps(questions.items))


async def is_answered(deliberation_id: str, state: State[Any]) -> bool:
    """Whether the deliberation came to its end, or False where it was cancelled. Raises what ended it otherwise."""
    ended = await _end_of(deliberation_id)
    if ended is None:
        await state.aresult()
        raise RuntimeError(f"the deliberation ended without a result: {state.message}")
    return ended is not Status.CANCELLED


async def was_cancelled(deliberation_id: str) -> bool:
    """Whether a deliberation ended by a cancel."""
    return await _end_of(deliberation_id) is Status.CANCELLED


async def _end_of(deliberation_id: str) -> Status | None:
    """How a deliberation ended; None for one that has not."""
    finished = await (await open_record()).last(subjects.finished(deliberation_id))
    return Status(finished.body["status"]) if finished else None


@task(name="score", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def score(deliberation_id: str, questions: QuestionFile, rivals: bool) -> tuple[Evaluation, Scoresheet]:
    """Score every arm on every question, from the answers and decisions on the record; the rivals, where wanted."""
    record = await open_record()
    plan = await plan_of(record, deliberation_id)
    waves = await _plan_in_waves(record, deliberation_id) if rivals else None
    asked = {question.id: question for question in questions.by_line.values()}
    sheet, numbered = Scoresheet(), enumerate(plan.agenda)
    async with questions.checker() as checker:
        while some := list(islice(numbered, READ_AT_ONCE)):
            read = await asyncio.gather(*(_read(record, plan, waves, item, rivals) for _, item in some))
            for (number, item), answered in zip(some, read, strict=True):
                arms = reached(answered, number)
                # The same text gets the same verdict in every arm.
                texts = [*(one.text for one in arms.values()), *texts_of(answered)]
                verdicts = await checker.verdicts(asked[item.id], [text for text in texts if text is not None])
                sheet.add(item.id, answered.result, arms, verdicts)
                sheet.look_at(answered, verdicts)
    return sheet.evaluation(plan), sheet


@task(name="show", retries=2, retry_delay_seconds=1, cache_policy=NO_CACHE, persist_result=False)
async def show(evaluation: Evaluation) -> None:
    """Write the report and the table of the arms."""
    what = f"council {evaluation.council}" + (", simulated" if evaluation.engine == SIMULATOR else "")
    await acreate_markdown_artifact(
        report(evaluation), key=artifact_key("evaluation", evaluation.id), description=f"Evaluation of {what}"
    )
    await acreate_table_artifact(
        arm_table(evaluation), key=artifact_key("arms", evaluation.id), description=f"Arms of {what}"
    )


def evaluated(evaluation: Evaluation, sheet: Scoresheet) -> State[Any]:
    """What Prefect shows of an evaluation that has ended: how often each arm was right."""
    simulated = "simulated, " if evaluation.engine == SIMULATOR else ""
    right = (f"{arm.arm} {arm.accuracy.count} of {arm.accuracy.of}" for arm in evaluation.arms if arm.accuracy)
    name = "Degraded" if evaluation.undecided or evaluation.degraded else "Completed"
    return Completed(message=f"{simulated}right: {', '.join(right)}", name=name, data=(evaluation, sheet))


async def _plan_in_waves(record: Record, deliberation_id: str) -> Deliberation | None:
    """The plan of the rival that asks in waves; None where it was left out or cancelled."""
    if await was_cancelled(in_waves(deliberation_id)):
        return None
    planned = await record.last(subjects.plan(in_waves(deliberation_id)), direct=False)
    return Deliberation.from_record(planned.body["plan"]) if planned else None


async def _read(record: Record, plan: Deliberation, waves: Deliberation | None, item: Item, rivals: bool) -> Answered:
    """A question as it was answered, from the record."""
    escalated = None
    if waves is not None:
        escalated = await progress_of(record, waves, item), await _decision(record, waves, item)
    return Answered(
        await progress_of(record, plan, item),
        await _decision(record, plan, item),
        bare_answers(plan.council, await answers_of(record, plan.id, item.id)) if rivals else (),
        escalated,
    )


async def _decision(record: Record, plan: Deliberation, item: Item) -> ItemResult | None:
    decision = await record.last(subjects.decision(plan.id, item.id))
    return ItemResult.from_record(decision.body) if decision else None

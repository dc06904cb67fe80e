"""An evaluation in words and tables, for a terminal and as Markdown."""

from __future__ import annotations

from typing import Any

from tasks.council.evaluation import ArmFigures, Evaluation
from tasks.council.evaluation_figures import PairedDifference
from tasks.council.report import escape
from tasks.council.results import SIMULATOR

SIMULATED = (
    "SIMULATED: the answers come from the simulator, not from a model. These figures say nothing about models; "
    "where its players were set to an accuracy, they show what the arms make of that."
)
COLUMNS = (
    "arm",
    "right",
    "accuracy (95 %)",
    "vs single (95 %)",
    "p",
    "no answer",
    "tokens / right",
    "median s",
    "p95 s",
)


def arm_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    """One row for each arm, by column."""
    return [dict(zip(COLUMNS, _cells(arm), strict=True)) for arm in evaluation.arms]


def arm_table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The same as numbers."""
    return [
        {
            "arm": arm.arm,
            "questions": arm.questions,
            "right": arm.accuracy.count if arm.accuracy else 0,
            "accuracy": arm.accuracy.value if arm.accuracy else None,
            "low": arm.accuracy.low if arm.accuracy else None,
            "high": arm.accuracy.high if arm.accuracy else None,
            "difference": arm.versus_single.value if arm.versus_single else None,
            "p_value": arm.versus_single.p_value if arm.versus_single else None,
            "unanswered": arm.unanswered,
            "tokens": arm.usage.prompt_tokens + arm.usage.completion_tokens,
            "tokens_per_right_answer": arm.tokens_per_right_answer,
            "latency_median_ms": arm.latency_median_ms,
            "latency_p95_ms": arm.latency_p95_ms,
        }
        for arm in evaluation.arms
    ]


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader has to know beside the table."""
    closed = next(arm for arm in evaluation.arms if arm.arm == "majority").questions
    told = [f"{evaluation.questions - evaluation.undecided} of {evaluation.questions} questions decided"]
    if evaluation.undecided:
        told[0] += "; the others count as wrong for every arm but a single member that answered"
    if evaluation.degraded:
        told.append(f"{evaluation.degraded} degraded: a member's answer, ballot or text is missing there")
    if closed < evaluation.questions:
        told.append(
            f"majority stands over the {closed} questions with a closed answer; compare it by `vs single`, "
            "which is over the same questions"
        )
    if evaluation.check_problems:
        told.append(f"{evaluation.check_problems} texts count as wrong because their check could not tell:")
    return told


def report(evaluation: Evaluation) -> str:
    """The whole report as Markdown; nothing that users or models wrote is rendered."""
    simulated = evaluation.engine == SIMULATOR
    rows = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
    rows += [f"| {' | '.join(row.values())} |" for row in arm_rows(evaluation)]
    parts = [
        f"# Is council {escape(evaluation.council)} better than one call?",
        *([f"**{SIMULATED}**"] if simulated else []),
        "\n".join(rows),
        "\n".join(f"- {note}" for note in notes(evaluation)),
        *(["\n".join(f"- {escape(problem)}" for problem in evaluation.problems)] if evaluation.problems else []),
        "`single` is one member's first proposal, in turn; `majority` the vote of all first proposals; `rank` what the "
        "ballots put first; `synthesize` the decision. All read the same answers, so that `vs single` compares "
        "question by question; `p` is McNemar's exact one. `no answer` counts as wrong.",
        f"Deliberation `{evaluation.id}`, {evaluation.members} members, {evaluation.rounds} rounds of revision.",
    ]
    return "\n\n".join(parts)


def _cells(arm: ArmFigures) -> tuple[str, ...]:
    right, per_answer = arm.accuracy, arm.tokens_per_right_answer
    return (
        arm.arm,
        f"{right.count} of {right.of}" if right else "not applicable",
        f"{right.value:.1%} ({right.low:.0%} to {right.high:.0%})" if right else "-",
        _difference(arm.versus_single) if arm.versus_single else "-",
        f"{arm.versus_single.p_value:.3f}" if arm.versus_single else "-",
        str(arm.unanswered),
        f"{per_answer:,.0f}" if per_answer is not None else "-",
        _seconds(arm.latency_median_ms),
        _seconds(arm.latency_p95_ms),
    )


def _difference(found: PairedDifference) -> str:
    """In percentage points."""
    return f"{100 * found.value:+.1f} ({100 * found.low:+.0f} to {100 * found.high:+.0f})"


def _seconds(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms / 1000:.2f}"

"""An evaluation in words and tables, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.council.engines import SIMULATOR
from tasks.council.evaluation.arms import ArmFigures, Evaluation
from tasks.council.report.markup import escape

SIMULATED = (
    "SIMULATED: the answers come from the simulator, not from a model. These figures say nothing about models; "
    "where its players were set to an accuracy, they show what the arms make of that."
)


def figures(evaluation: Evaluation) -> dict[str, list[str]]:
    """By what is measured, one cell for each arm: the arms side by side."""
    return {name: [cell(arm) for arm in evaluation.arms] for name, cell in _CELLS.items()}


def arm_table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The same as numbers, a row for each arm."""
    return [_numbers(arm) for arm in evaluation.arms]


def _numbers(arm: ArmFigures) -> dict[str, Any]:
    """One arm; an arm without a question has none right, and no share of them."""
    accuracy, versus = arm.accuracy, arm.versus_single
    return {
        "arm": arm.arm,
        "questions": arm.questions,
        "right": accuracy.count if accuracy else 0,
        "accuracy": accuracy.value if accuracy else None,
        "low": accuracy.low if accuracy else None,
        "high": accuracy.high if accuracy else None,
        "difference": versus.value if versus else None,
        "p_value": versus.p_value if versus else None,
        "unanswered": arm.unanswered,
        "tokens": arm.usage.prompt_tokens + arm.usage.completion_tokens,
        "tokens_per_right_answer": arm.tokens_per_right_answer,
        "latency_median_ms": arm.latency_median_ms,
        "latency_p95_ms": arm.latency_p95_ms,
    }


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader has to know beside the table."""
    closed = next(arm for arm in evaluation.arms if arm.arm == "majority").questions
    told = [f"{evaluation.questions - evaluation.undecided} of {evaluation.questions} questions decided"]
    if evaluation.undecided:
        told[0] += "; the others count as wrong for every arm but a single member that answered"
    if evaluation.degraded:
        told.append(f"{evaluation.degraded} degraded: a member's answer, ballot or text is missing there")
    if closed == 0:
        told.append("no question has a closed answer, so there is no majority")
    elif closed < evaluation.questions:
        told.append(f"majority is over the {closed} questions with a closed answer, and so are its points vs single")
    if evaluation.check_problems:
        told.append(f"{evaluation.check_problems} x a check could not tell, so that its text counts as wrong:")
    return told


def report(evaluation: Evaluation) -> str:
    """The whole report as Markdown; nothing that users or models wrote is rendered."""
    simulated = evaluation.engine == SIMULATOR
    rows = [
        f"| | {' | '.join(arm.arm for arm in evaluation.arms)} |",
        "| --- " + "| ---: " * len(evaluation.arms) + "|",
    ]
    rows += [f"| {name} | {' | '.join(cells)} |" for name, cells in figures(evaluation).items()]
    parts = [
        f"# Is council {escape(evaluation.council)} better than one call?",
        *([f"**{SIMULATED}**"] if simulated else []),
        "\n".join(rows),
        "\n".join(f"- {note}" for note in notes(evaluation)),
        *(["\n".join(f"- {escape(problem)}" for problem in evaluation.problems)] if evaluation.problems else []),
        "`single` is one member's first proposal, in turn; `majority` the vote of all first proposals; `rank` what the "
        "ballots put first; `synthesize` the decision. All read the same answers, so that they are "
        "compared question by question: gained are right here and wrong with `single`, lost the other way round.",
        f"Deliberation `{evaluation.id}`, {evaluation.members} members, {evaluation.rounds} rounds of revision.",
    ]
    return "\n\n".join(parts)


def _right(arm: ArmFigures) -> str:
    return f"{arm.accuracy.count} of {arm.accuracy.of}" if arm.accuracy else "-"


def _accuracy(arm: ArmFigures) -> str:
    return f"{arm.accuracy.value:.1%}" if arm.accuracy else "-"


def _accuracy_interval(arm: ArmFigures) -> str:
    return f"{arm.accuracy.low:.1%} to {arm.accuracy.high:.1%}" if arm.accuracy else "-"


def _difference(arm: ArmFigures) -> str:
    return f"{100 * arm.versus_single.value:+.1f}" if arm.versus_single else "-"


def _difference_interval(arm: ArmFigures) -> str:
    versus = arm.versus_single
    return f"{100 * versus.low:+.1f} to {100 * versus.high:+.1f}" if versus else "-"


def _gained_and_lost(arm: ArmFigures) -> str:
    return f"{arm.versus_single.gained} and {arm.versus_single.lost}" if arm.versus_single else "-"


def _p_value(arm: ArmFigures) -> str:
    versus = arm.versus_single
    if versus is None:
        return "-"
    return "< 0.001" if versus.p_value < 0.001 else f"{versus.p_value:.3f}"


def _tokens(arm: ArmFigures) -> str:
    return f"{arm.tokens_per_right_answer:,.0f}" if arm.tokens_per_right_answer is not None else "-"


def _seconds(value_ms: float | None) -> str:
    return f"{value_ms / 1000:.2f} s" if value_ms is not None else "-"


_CELLS: dict[str, Callable[[ArmFigures], str]] = {
    "right": _right,
    "no answer": lambda arm: str(arm.unanswered),
    "accuracy": _accuracy,
    "accuracy, 95 %": _accuracy_interval,
    "points vs single": _difference,
    "points, 95 %": _difference_interval,
    "gained and lost": _gained_and_lost,
    "p (McNemar)": _p_value,
    "tokens per right": _tokens,
    "latency, median": lambda arm: _seconds(arm.latency_median_ms),
    "latency, p95": lambda arm: _seconds(arm.latency_p95_ms),
}

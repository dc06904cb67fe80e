"""An evaluation in words and tables, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from tasks.council.engines import SIMULATOR
from tasks.council.evaluation.arms import ARMS, VOTES, Arm, ArmFigures, Evaluation
from tasks.council.evaluation.figures import CONFIDENCE, PairedDifference, holm
from tasks.council.report.markup import escape

COLUMNS = ("", "right", "accuracy (95 %)", "points (95 %)", "tokens/right", "median")
SIMULATED = (
    "SIMULATED: the answers come from the simulator, not from a model. These figures say nothing about models; "
    "where its players were set to an accuracy, they show what the arms make of that."
)


def figures(evaluation: Evaluation) -> dict[str, list[str]]:
    """By what is measured, one cell for each arm: the arms side by side."""
    return {name: [cell(arm) for arm in evaluation.arms] for name, cell in _CELLS.items()}


def brief(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """A row for each arm under `COLUMNS`, as it fits a terminal; `figures` has the rest."""
    has_bare = _has_bare(evaluation)
    versus = attrgetter("versus_bare" if has_bare else "versus_single")
    return [_row(arm, versus(arm)) for arm in evaluation.arms]


def _row(arm: ArmFigures, versus: PairedDifference | None) -> tuple[str, ...]:
    return (
        arm.arm,
        _right(arm),
        _accuracy_in_short(arm),
        _versus_in_short(versus),
        _tokens(arm),
        _seconds(arm.latency_median_ms),
    )


def _has_bare(evaluation: Evaluation) -> bool:
    return any(arm.arm == "bare" for arm in evaluation.arms)


def _accuracy_in_short(arm: ArmFigures) -> str:
    one = arm.accuracy
    return f"{one.value:.0%} ({100 * one.low:.0f} to {100 * one.high:.0f})" if one else "-"


def _versus_in_short(versus: PairedDifference | None) -> str:
    if versus is None:
        return "-"
    return f"{100 * versus.value:+.0f} ({100 * versus.low:+.0f} to {100 * versus.high:+.0f})"


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
        "difference_to_bare": arm.versus_bare.value if arm.versus_bare else None,
        "p_value": versus.p_value if versus else None,
        "p_value_to_bare": arm.versus_bare.p_value if arm.versus_bare else None,
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
        told[0] += "; the others count as wrong for majority, rank and synthesize"
    if evaluation.degraded:
        told.append(f"{evaluation.degraded} degraded: a member's answer, ballot or text is missing there")
    told.append(f"points are against {'bare' if _has_bare(evaluation) else 'single'}, question by question")
    told.append(_verdict(evaluation))
    told += _read_in_words(evaluation)
    if closed == 0:
        told.append("no question has a closed answer, so there is no majority")
    elif closed < evaluation.questions:
        told.append(
            f"the votes ({', '.join(VOTES)}) and their points are over the {closed} questions with a closed answer"
        )
    if evaluation.check_problems:
        told.append(f"{evaluation.check_problems} x a check could not tell, so that its text counts as wrong:")
    return told


def _verdict(evaluation: Evaluation) -> str:
    """What the questions show of the arms beside the plain call, or beside one member."""
    other = "bare" if _has_bare(evaluation) else "single"
    versus = attrgetter(f"versus_{other}")
    compared = {arm.arm: found for arm in evaluation.arms if (found := versus(arm)) is not None}
    if not compared:
        return f"there is nothing to compare with {other}"
    differ = _told_apart(compared)
    better = [name for name in differ if compared[name].value > 0]
    worse = [name for name in differ if compared[name].value < 0]
    told = "; ".join(filter(None, (_those("better", other, better), _those("worse", other, worse))))
    corrected = f"(McNemar, p corrected for {len(compared)} comparisons by Holm)"
    return f"{told or f'these questions show no difference between {other} and the others'} {corrected}"


def _told_apart(compared: Mapping[Arm, PairedDifference]) -> list[Arm]:
    """Those that differ beyond what chance explains in so many comparisons."""
    adjusted = holm([found.p_value for found in compared.values()])
    return [name for name, p_value in zip(compared, adjusted, strict=True) if p_value <= 1 - CONFIDENCE]


def _those(how: str, other: str, names: Sequence[str]) -> str:
    return f"{', '.join(names)} did {how} than {other}" if names else ""


def _read_in_words(evaluation: Evaluation) -> list[str]:
    """How many answers and ballots could be read, and what ballots did beside a lot."""
    told = []
    if readings := evaluation.readings:
        named = {"closed answers of members": readings.proposals, "plain answers": readings.bare}
        named["ballots"] = readings.ballots
        shares = [f"{one.count} of {one.of} {name}" for name, one in named.items() if one]
        if shares:
            told.append(f"could be read: {', '.join(shares)}")
    if beside := evaluation.ballots_beside:
        right = beside.ballots
        told.append(
            f"ballots were cast on {beside.questions} questions, and put a right proposal first in {right.value:.0%} "
            f"({right.low:.0%} to {right.high:.0%}); one drawn by lot is right in {beside.lot:.0%}, the one that was "
            f"shown first in {beside.shown_first:.0%}"
        )
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
        f"{'; '.join(f'`{arm}`: {words}' for arm, words in ARMS.items())}. The four of the council read the same "
        "answers. All are compared question by question: gained are right here and wrong with `single`, lost the other "
        "way round.",
        f"Deliberation `{evaluation.id}`, {evaluation.members} members, {evaluation.rounds} rounds of revision.",
    ]
    return "\n\n".join(parts)


def _right(arm: ArmFigures) -> str:
    return f"{arm.accuracy.count} of {arm.accuracy.of}" if arm.accuracy else "-"


def _accuracy(arm: ArmFigures) -> str:
    return f"{arm.accuracy.value:.1%}" if arm.accuracy else "-"


def _accuracy_interval(arm: ArmFigures) -> str:
    return f"{arm.accuracy.low:.1%} to {arm.accuracy.high:.1%}" if arm.accuracy else "-"


def _points(versus: PairedDifference | None) -> str:
    return f"{100 * versus.value:+.1f}" if versus else "-"


def _points_interval(versus: PairedDifference | None) -> str:
    return f"{100 * versus.low:+.1f} to {100 * versus.high:+.1f}" if versus else "-"


def _gained_and_lost(arm: ArmFigures) -> str:
    return f"{arm.versus_single.gained} and {arm.versus_single.lost}" if arm.versus_single else "-"


def _p_value(versus: PairedDifference | None) -> str:
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
    "points vs bare": lambda arm: _points(arm.versus_bare),
    "points vs bare, 95 %": lambda arm: _points_interval(arm.versus_bare),
    "p vs bare (McNemar)": lambda arm: _p_value(arm.versus_bare),
    "points vs single": lambda arm: _points(arm.versus_single),
    "points, 95 %": lambda arm: _points_interval(arm.versus_single),
    "gained and lost": _gained_and_lost,
    "p (McNemar)": lambda arm: _p_value(arm.versus_single),
    "tokens per right": _tokens,
    "latency, median": lambda arm: _seconds(arm.latency_median_ms),
    "latency, p95": lambda arm: _seconds(arm.latency_p95_ms),
}

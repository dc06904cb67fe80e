"""The phrases that simulated texts are made of; which ones come is decided in `text.py`.

Placeholders: {a} and {b} words of the task, {angle} the idea that a text follows, {name} {arg} {cls} names
made from the task, {doc} the line of documentation, {slug} a name for manifests, {count} a small number.
"""

from __future__ import annotations

from typing import NamedTuple

STOP_WORDS = frozenset(
    {
        "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "been", "before",
        "but", "by", "can", "could", "do", "does", "each", "every", "for", "from", "get", "give", "given",
        "had", "has", "have", "how", "if", "in", "into", "is", "it", "its", "let", "like", "make", "may",
        "more", "most", "must", "need", "needs", "new", "no", "not", "of", "on", "one", "only", "or",
        "other", "our", "out", "over", "own", "per", "please", "provide", "should", "so", "some", "such",
        "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those",
        "through", "to", "too", "under", "up", "use", "used", "using", "very", "was", "we", "well", "were",
        "what", "when", "where", "which", "who", "why", "will", "with", "without", "would", "write", "you",
        "your", "design", "implement", "create", "build", "explain", "task", "following", "include",
        "including",
    }
)  # fmt: skip

ANGLES = (
    "a small pure core", "explicit state", "an append-only log", "validation at the border", "back-pressure",
    "idempotent steps", "plain data in and out", "measurement before tuning", "one owner for each concern",
    "a table-driven layout", "a thin adapter layer", "immutable inputs", "bounded resources", "fast failure",
    "a narrow public interface", "incremental delivery", "contracts between the parts", "a walking skeleton",
    "the shortest path that works", "a single source of truth",
)  # fmt: skip

OPENERS = (
    "{angle} decides how {a} and {b} come together.",
    "begin with {a}, keep {b} replaceable, and rely on {angle}.",
    "the plan rests on {angle}; {a} comes first and {b} follows.",
    "treat {a} as the hard part and answer it with {angle}, before {b}.",
    "split {a} from {b} and join them by {angle}.",
    "we get to {a} by way of {angle}, and leave {b} for the second step.",
    "with {angle} in place, {b} becomes a detail of {a}.",
    "{b} first, {a} second, and {angle} as the thread between them.",
    "what makes {a} work is {angle}; {b} only has to keep up.",
    "let {angle} carry {a}, so that {b} can change later.",
    "{a} deserves {angle}, and {b} deserves a test.",
    "start small: {angle}, one path for {a}, one for {b}.",
    "three moves settle it: isolate {a}, define {b}, trust {angle}.",
    "our wager is {angle}, with {a} at the centre and {b} at the edge.",
    "no cleverness around {a}; {angle} and a plain {b} will do.",
    "reading {b} closely, the answer for {a} is {angle}.",
)

ANALYSIS = (
    "Most of the difficulty sits where {a} meets {b}; the rest is routine.",
    "Two forces pull against each other here: {a} wants to be simple, {b} wants to be complete.",
    "The inputs are known, the volume is not, so {a} has to hold when {b} grows.",
    "A reader should see {a} in one glance and find {b} without a search.",
    "Nothing in the statement forces shared state, which keeps {a} and {b} independent.",
    "The wording leaves {b} open; we take the strict reading of {a} and say so.",
    "Failure of {b} must stay visible, otherwise {a} looks finished when it is not.",
    "What is measured is {a}; what users notice is {b}.",
)

MEANS = (
    "settled in the first step and covered by a check",
    "done in one place, so that it cannot drift",
    "part of the definition of done",
    "made explicit in the interface",
    "verified on every change",
    "kept to a few lines that are easy to review",
    "handled before any work begins",
    "shown in the example below",
)

STEPS = (
    "Fix the boundary of {a} and write down what it does not do.",
    "Give {b} one entry point and one kind of result.",
    "Keep {a} free of input and output, so that it can be tried alone.",
    "Name every limit that {b} relies on and check it at the border.",
    "Replace the slow part of {a} only after it has been measured.",
    "Return a value or raise a named error; {b} never guesses.",
    "Record what {a} decided, so that a surprise can be traced.",
    "Deliver {a} first and switch {b} on behind it.",
)

RISKS = (
    "{b} grows faster than expected: bound it and reject the surplus early.",
    "Empty or repeated input reaches {a}: treat both as ordinary cases.",
    "Two callers touch {a} at once: keep its state local or guard it.",
    "{a} is right but slow: measure on real sizes before changing it.",
    "A dependency of {b} is away: time out, report it, and try again later.",
    "The meaning of {b} shifts: version it and refuse what is unknown.",
    "Operators cannot see why {a} stalled: log one line for each decision.",
    "Late changes to {b} break callers: hold the interface and add beside it.",
    "Rounding or ordering differs between machines: make both explicit for {a}.",
    "The first release of {a} does too much: cut it to one path.",
)

REMARKS = (
    "Sound on {a}, thin on {b}.",
    "Clear about {b}; {a} would need a test.",
    "Covers {a} well and names the risk in {b}.",
    "The treatment of {a} is plausible, that of {b} is too short.",
    "Good structure, but {b} is left to the reader.",
    "Answers {a} directly and keeps {b} simple.",
)


class Role(NamedTuple):
    """How a role speaks: what it looks at, and what it builds."""

    lens: tuple[str, ...]
    lead: tuple[str, ...]


ROLES = {
    "DEV": Role(
        (
            "In code: one function with a clear contract, and an implementation that reads top down.",
            "The implementation stays a single function; supporting code is small and typed.",
        ),
        (
            "The code below is the core function; the rest of the implementation calls it.",
            "This function carries the implementation; its code needs nothing but the standard library.",
        ),
    ),
    "QA": Role(
        (
            "Quality is decided by the test plan: each edge case has a test before the change is accepted.",
            "We test the normal path, then every edge case, and track quality as failures for each release.",
        ),
        (
            "The test below pins one edge case; quality gates run all of them.",
            "One test for each edge case keeps quality visible.",
        ),
    ),
    "ARCHITECT": Role(
        (
            "The design parts interface from storage; in this architecture, scalability is adding nodes.",
            "Architecture: stateless parts in front, one durable behind; the design keeps scalability open.",
        ),
        (
            "The interface below is the seam of the design; scalability comes from what stands behind it.",
            "This seam fixes the architecture and leaves each part its own design.",
        ),
    ),
    "DEVOPS": Role(
        (
            "It ships through one pipeline, and each deployment to Kubernetes can be rolled back.",
            "The pipeline builds once; the same image goes into every Kubernetes deployment.",
        ),
        (
            "The check below gates the pipeline, the manifest is the Kubernetes deployment.",
            "Kubernetes probes call this check; the pipeline applies the deployment.",
        ),
    ),
    "DATA": Role(
        (
            "The pipeline checks the schema at its border and reports data quality for each batch.",
            "Every stage of the pipeline declares its schema, so that a quality problem shows at once.",
        ),
        (
            "This step of the pipeline enforces the schema and counts quality problems.",
            "Schema first: the pipeline drops nothing silently and quality stays countable.",
        ),
    ),
}

ANY_ROLE = Role(
    (
        "Seen from this role, what counts is that the result can be checked.",
        "From this side the first question is who relies on the result, and how it is verified.",
    ),
    ("The sketch below shows the central step.", "In short form, the central step looks like this."),
)

"""A template that makes a row's task of its columns: `{{title}}: {{body}}`.

It is Jinja, in its sandbox, and a small part of it: columns, a few filters, conditions. What could repeat or compute is
no part of it, so that filling it takes time and room in proportion to the row. All values are texts, and what they hold
is never taken for a template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from tasks.batch.records import BatchFileError, Fault
from tasks.council.base import MAX_TEXT
from tasks.council.plain import SHOWN_INPUT, one_line

MAX_TEMPLATE = 10_000
"""Characters of a template."""
MAX_NODES = 100
"""Columns, texts, filters and conditions of a template, with what they stand in."""
MAX_OUTPUT = 2 * MAX_TEXT
"""Characters after which nothing further is written: no task may be as long."""
FILTERS = ("capitalize", "default", "lower", "title", "trim", "upper")
RESERVED = ("caller", "kwargs", "loop", "self", "super", "varargs")
"""Names that Jinja takes for something of its own."""
_TAKEN = f"columns, if, texts in quotes, and the filters {', '.join(FILTERS)}"
_NAMES = "a column's name has to be letters, digits and _; rename one that is not"
_WORDS: dict[type[nodes.Node], str] = {
    nodes.For: "a loop",
    nodes.Call: "a call",
    nodes.Test: "a test (`is`)",
    nodes.Getitem: "a part in brackets",
    nodes.Getattr: "a dot behind a name",
    nodes.Keyword: "a named argument",
    nodes.Concat: "~",
    nodes.Add: "+",
    nodes.Sub: "-",
    nodes.Mul: "*",
    nodes.Div: "/",
    nodes.Pow: "**",
    nodes.Neg: "-",
    nodes.Assign: "set",
    nodes.Include: "include",
    nodes.Macro: "a macro",
    nodes.List: "a list",
    nodes.Dict: "an object",
}
"""Parts that others have, in words."""
_PARTS = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter),
    *(nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
)


class TaskTemplate:
    """A template of tasks, compiled."""

    def __init__(self, source: str) -> None:
        """Raises BatchFileError where it is none, or has what is no part of one."""
        self.source = source
        if len(source) > MAX_TEMPLATE:
            raise BatchFileError(f"--task-template: has {len(source):,} characters; {MAX_TEMPLATE:,} are taken")
        jinja = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        jinja.globals.clear()
        jinja.filters = {name: jinja.filters[name] for name in FILTERS}
        with _told():
            parsed = jinja.parse(source)
        _require_known(parsed)
        with _told():
            self.columns = tuple(sorted(meta.find_undeclared_variables(parsed)))
            self._template = jinja.from_string(source)
        if not self.columns:
            raise BatchFileError('--task-template: names no column; one is like "{{title}}: {{body}}"')

    def filled(self, values: Mapping[str, str]) -> str | Fault:
        """The task of a row; a column that the row lacks is a fault."""
        pieces, size = [], 0
        for name, value in values.items():
            if len(value) > MAX_TEXT:
                told = f"the column {name!r:.100} has {len(value):,} characters; {MAX_TEXT:,} are taken"
                return Fault("task-template", "is too long", told)
        try:
            for piece in self._template.generate(**values):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_OUTPUT:
                    return Fault("task-template", "is too long", f"makes more than {MAX_OUTPUT:,} characters")
        except (TemplateError, TypeError, ValueError) as error:
            return Fault("task-template", "cannot be filled", f"cannot be filled: {one_line(str(error), SHOWN_INPUT)}")
        return "".join(pieces)


@contextmanager
def _told() -> Iterator[None]:
    """Whatever Jinja raises of a template, as BatchFileError."""
    try:
        yield
    except RecursionError as error:
        raise BatchFileError("--task-template: is no template: it is nested too deep") from error
    except (TemplateError, SyntaxError, ValueError) as error:  # ValueError: no sound text
        told = one_line(str(error), SHOWN_INPUT) or "it is none of Jinja's"
        raise BatchFileError(f"--task-template: is no template: {told}; {_NAMES}") from error


def _require_known(parsed: nodes.Template) -> None:
    """Raise BatchFileError where there is something in the template that is no part of one here."""
    waiting: list[nodes.Node] = [parsed]
    found = 0
    while waiting:
        node = waiting.pop()
        found += 1
        if found > MAX_NODES:
            raise BatchFileError(f"--task-template: has more than {MAX_NODES} parts")
        if wrong := _wrong(node):
            raise BatchFileError(f"--task-template: line {node.lineno}: {wrong}")
        waiting.extend(node.iter_child_nodes())


def _wrong(node: nodes.Node) -> str | None:
    """Why a part of a template is none here."""
    if not isinstance(node, _PARTS):
        return f"{_WORDS.get(type(node), 'something')} is no part of a template here, which has {_TAKEN}; {_NAMES}"
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        return f"the filter {node.name!r:.100} is unknown; there are {', '.join(FILTERS)}"
    if isinstance(node, nodes.Name) and node.name in RESERVED:
        return f"{node.name} is a word of Jinja's, and can be no column of a template; rename the column"
    if isinstance(node, nodes.Const) and not isinstance(node.value, str | bool | None):
        return "a number is no part of a template here; values are texts, so write it in quotes"
    return None

"""A template that makes a row's task of its columns: `{{title}}: {{body}}`.

It is Jinja, in its sandbox, and a small part of it: columns, a few filters, conditions. What could repeat or compute is
no part of it, so that filling it takes time and room in proportion to the row. All values are texts, and what they hold
is never taken for a template.
"""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from tasks.batch.records import BatchFileError, Fault
from tasks.council.base import MAX_TEXT
from tasks.council.plain import SHOWN_INPUT, one_line

MAX_TEMPLATE = 10_000
"""Characters of a template."""
MAX_OUTPUT = 2 * MAX_TEXT
"""Characters after which nothing further is written: no task may be as long."""
FILTERS = ("capitalize", "default", "lower", "title", "trim", "upper")
_PARTS = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter),
    *(nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
)


class TaskTemplate:
    """A template of tasks, compiled."""

    def __init__(self, source: str) -> None:
        """Raises BatchFileError where it is none, or has what is no part of one."""
        if len(source) > MAX_TEMPLATE:
            raise BatchFileError(f"--task-template: has {len(source):,} characters; {MAX_TEMPLATE:,} are taken")
        jinja = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        jinja.globals.clear()
        jinja.filters = {name: jinja.filters[name] for name in FILTERS}
        try:
            parsed = jinja.parse(source)
            _require_known(parsed)
            self.columns = tuple(sorted(meta.find_undeclared_variables(parsed)))
            self._template = jinja.from_string(source)
        except (TemplateError, SyntaxError, ValueError, RecursionError) as error:  # ValueError: no sound text
            told = one_line(str(error), SHOWN_INPUT) or type(error).__name__
            raise BatchFileError(f"--task-template: is no template: {told}") from error
        if not self.columns:
            raise BatchFileError('--task-template: names no column; one is like "{{title}}: {{body}}"')

    def filled(self, values: Mapping[str, str]) -> str | Fault:
        """The task of a row; a column that the row lacks is a fault."""
        pieces, size = [], 0
        try:
            for piece in self._template.generate(**values):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_OUTPUT:
                    return Fault("task-template", "is too long", f"makes more than {MAX_OUTPUT:,} characters")
        except (TemplateError, TypeError, ValueError) as error:
            return Fault("task-template", "cannot be filled", f"cannot be filled: {one_line(str(error), SHOWN_INPUT)}")
        return "".join(pieces)


def _require_known(parsed: nodes.Template) -> None:
    """Raise BatchFileError where there is something in the template that is no part of one here."""
    for node in [parsed, *parsed.find_all(nodes.Node)]:
        if not isinstance(node, _PARTS):
            what = type(node).__name__
            told = f"a template has columns, if, and the filters {', '.join(FILTERS)}"
            raise BatchFileError(f"--task-template: line {node.lineno}: {what} is no part of it; {told}")

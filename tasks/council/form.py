"""The flow's parameters that hold JSON, as Prefect sees them: in its form, and where it refuses a run.

What Prefect stores it reads back by recursion: a value of some hundred levels is accepted, and then every list of flow
runs fails, for everybody. JSON Schema has no keyword for depth, so each level is a type that holds the one below.
The bounds of `DeliberationRequest` hold besides; it is what reads the parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field
from typing_extensions import TypeAliasType

from tasks.council.base import MAX_DEPTH
from tasks.council.models import ItemRequest

if TYPE_CHECKING:
    JsonForm = dict[str, Any]
    AnswerForm = dict[str, Any]
    ItemForm = dict[str, Any]
else:

    def _json(depth: int) -> Any:
        """JSON of so many levels; what is no list or object is tried first, since most values are none."""
        value = str | float | bool | None
        for level in range(1, depth + 1):
            value = TypeAliasType(f"Json{level}", str | float | bool | dict[str, value] | list[value] | None)
        return value

    JsonForm = dict[str, _json(MAX_DEPTH - 1)]
    """An object of at most `MAX_DEPTH` levels."""
    AnswerForm = dict[str, str | list[str]]

    class ItemForm(ItemRequest):
        """One task: `task`, and optionally `id`, `rubric`, `requirements`, `context`, `answer_format`."""

        context: JsonForm = Field(default_factory=dict, description="Facts that members should know.")

"""A council as a Prefect block, editable in the UI."""

from __future__ import annotations

from typing import Any

from prefect.blocks.core import Block

from tasks.council.council import CouncilRules, CouncilSpec


class Council(CouncilRules, Block):
    """A named set of members that decide together. Members name their model server; no secret is stored here.

    Example:
        ```python
        from blocks.council import Council

        council = Council.load("BLOCK_NAME")
        print(council.spec("BLOCK_NAME"))
        ```
    """

    _block_type_name = "Council"
    _block_type_slug = "council"
    _description = "A set of LLM agents, each with a role and a model server, and the rules they decide by."
    _documentation_url = "https://github.com/karpathy/llm-council"  # type: ignore[assignment]  # Prefect declares HttpUrl and validates a str

    def spec(self, name: str) -> CouncilSpec:
        """The council as plain frozen data, under its name."""
        return CouncilSpec.model_validate({"name": name, **self.rules})

    @property
    def rules(self) -> dict[str, Any]:
        """What the council is made of, without what Prefect adds to a block."""
        return {field: getattr(self, field) for field in CouncilRules.model_fields}

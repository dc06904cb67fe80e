"""The root of every error that Conclave raises on purpose, and of those that somebody else can mend.

It stands with the domain, which imports nothing of ours; `blocks/exceptions.py` draws the tree.
"""

from __future__ import annotations

from tasks.council.plain import SHOWN_INPUT, shortened


class ConclaveError(Exception):
    """Base of every error that Conclave raises on purpose. Any other one is a fault in the program."""


class WrongUse(ConclaveError, ValueError):
    """What somebody gave cannot be used; the text names the field. A ValueError too, as pydantic's validators raise."""


class InvalidRequest(WrongUse):
    """A request that cannot be run as it stands; `field` names what is wrong, `problem` says what would be right."""

    def __init__(self, field: str, problem: str) -> None:
        self.field, self.problem = shortened(field, SHOWN_INPUT), shortened(problem)
        super().__init__(self.field, self.problem)

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"

"""The root of every error that Conclave raises on purpose, and of those that somebody else can mend.

It stands with the domain, which imports nothing of ours; `blocks/exceptions.py` draws the tree.
"""

from __future__ import annotations


class ConclaveError(Exception):
    """Base of every error that Conclave raises on purpose. Any other one is a fault in the program."""


class WrongUse(ConclaveError, ValueError):
    """What somebody gave cannot be used; the text names the field. A ValueError too, as pydantic's validators raise."""

"""Every tally rule by its name; types, schema, help, completion and words of ties follow from here."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import get_args

from tasks.council.exceptions import WrongUse
from tasks.council.tally_names import DEFAULT_TALLY, TallyName
from tasks.council.voting.rules.borda import BORDA
from tasks.council.voting.rules.copeland import COPELAND
from tasks.council.voting.rules.rule import TallyRule
from tasks.council.voting.rules.schulze import SCHULZE

CHECKS, HASH = "checks", "hash"
"""What breaks ties after a rule's own ways."""


def _by_name(*rules: TallyRule) -> dict[str, TallyRule]:
    named = {rule.name: rule for rule in rules}
    assert len(named) == len(rules), "two rules have one name"
    return named


def _words_of_ties(rules: Mapping[str, TallyRule]) -> dict[str, str]:
    """By what a tie may be broken, as a sentence says it."""
    own = chain.from_iterable(rule.tie_breaks for rule in rules.values())
    return {CHECKS: "the checks", HASH: "a hash", **{way.name: way.words for way in own}}


RULES: Mapping[str, TallyRule] = _by_name(
    BORDA,
    COPELAND,
    SCHULZE,
)
assert tuple(RULES) == get_args(TallyName), "the rules are those of tasks/council/tally_names.py"
DEFAULT = DEFAULT_TALLY
BROKEN_BY: Mapping[str, str] = _words_of_ties(RULES)


def rule_named(name: str) -> TallyRule:
    """The rule of that name. Raises WrongUse."""
    if name not in RULES:
        raise WrongUse(f"rule: {name!r} is unknown; the rules are {', '.join(RULES)}")
    return RULES[name]

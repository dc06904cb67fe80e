"""How what is ours is named in a Prefect that may serve others, too.

With `CONCLAVE_PREFIX=staging` every name carries it: the block `dev` is stored as `staging-dev`, the deployments are
`deliberate/staging-deliberate`, the pool is `staging-conclave`. Users go on typing `dev`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from tasks.council.exceptions import WrongUse

VARIABLE = "CONCLAVE_PREFIX"
PATTERN = r"[a-z0-9-]{1,20}"
RULE = "1 to 20 of a-z, 0-9 and '-', such as staging"
MARK = "conclave_installation"
"""The Prefect Variable that says whose the names are."""
TAG = "conclave:"
"""Tags of flow runs and deployments that begin so say whose they are."""


class PrefixError(WrongUse):
    """The prefix is not usable; the text names its variable."""


def prefix() -> str:
    """What the names of this process carry; empty where nothing is set. Raises PrefixError."""
    given = os.environ.get(VARIABLE, "")
    if given and re.fullmatch(PATTERN, given) is None:
        raise PrefixError(f"{VARIABLE}={given[:40]!r} is not usable: it should be {RULE}")
    return given


def carrying(prefix: str, name: str) -> str:
    """The name with a prefix."""
    return f"{prefix}-{name}" if prefix else name


def stored(name: str) -> str:
    """The name of a block, pool or deployment as Prefect has it."""
    return carrying(prefix(), name)


def shown(stored_name: str) -> str | None:
    """The name as users type it; None for one that does not carry this process's prefix."""
    begin = carrying(prefix(), "")
    return stored_name[len(begin) :] or None if stored_name.startswith(begin) else None


def ours(stored_names: Iterable[str], other_prefixes: Iterable[str]) -> list[str]:
    """Those of the names in a Prefect that are ours, as users type them, in order.

    `other_prefixes` are those of other installations there; where ours carry a prefix themselves, none are needed.
    """
    others = tuple(carrying(other, "") for other in other_prefixes)
    found = [shown(name) for name in stored_names if not name.startswith(others)]
    return sorted(name for name in found if name)


def mark() -> str:
    """The name of the Variable that says whose the names with this process's prefix are."""
    return f"{MARK}_{prefix()}" if prefix() else MARK


def prefix_of(variable: str) -> str | None:
    """The prefix of the names that a Variable marks; None for one that marks none."""
    if variable == MARK:
        return ""
    return variable.removeprefix(f"{MARK}_") if variable.startswith(f"{MARK}_") else None


def tag_of(installation: str) -> str:
    """The tag of an installation's flow runs and deployments."""
    return f"{TAG}{installation}"


def is_tag(tag: str) -> bool:
    """Whether a tag says whose something is."""
    return tag.startswith(TAG)

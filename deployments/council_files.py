"""Councils as a file that `conclave councils apply` takes."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from tasks.council.council import CouncilRules, CouncilSpec


def as_file(councils: Mapping[str, CouncilSpec]) -> str:
    """The text of a file with these councils in it, without what is as it would be anyway."""
    shown = {name: _rules(spec).model_dump(mode="json", exclude_defaults=True) for name, spec in councils.items()}
    return yaml.safe_dump({"councils": shown}, sort_keys=False, allow_unicode=True, width=110)


def _rules(spec: CouncilSpec) -> CouncilRules:
    return CouncilRules.model_validate({name: getattr(spec, name) for name in CouncilRules.model_fields})

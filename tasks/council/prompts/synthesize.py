"""What the chairman is shown and asked: the best proposals, and why the ballots put them there.

The task stands last, since that is what a small model answers (docs/model-servers.md has the figures); there is one
chairman, so no cache is lost by it. Sources come under the labels that reviewers saw, in the order of the tally, with
the reasons of the ballots and without a name, the chairman's own among them. Aggregating several answers by one more
call is what Mixture-of-Agents does (Wang et al., arXiv 2406.04692); here it follows a vote, and the best proposal
stands where it fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.council.closed_answers import AnswerFormat, closed_instruction
from tasks.council.council import Member
from tasks.council.models import Item
from tasks.council.prompt_texts import BUILT_IN, Prompts
from tasks.council.prompts.delimiters import fence, mark_of, neutral
from tasks.council.prompts.propose import role_of, task_last
from tasks.council.prompts.revise import critiques_of
from tasks.council.voting.ballots import Review, label_authors

MAX_SOURCES = 4
"""Proposals that the chairman is shown, the best."""
MAX_REASONS = 6
"""Critiques of one proposal that the chairman is shown."""


def synthesis_messages(
    chairman: Member,
    item: Item,
    sources: Mapping[str, str],
    authors: Sequence[str],
    ballots: Sequence[Review],
    salt: str,
    prompts: Prompts = BUILT_IN,
) -> list[dict[str, str]]:
    """The chat that asks for the decision; `sources` are texts by author in the order of the tally, best first.

    `salt` is the review's, and `authors` are all that were reviewed: so labels mean here what they mean in critiques.
    """
    shown = {label: author for label, author in label_authors(authors, salt).items() if author in sources}
    shown = dict(sorted(shown.items(), key=lambda one: list(sources).index(one[1])))
    if item.answer_format:
        labelled = {label: sources[author] for label, author in shown.items()}
        return _closed_messages(item, item.answer_format, labelled, salt, prompts)
    judged = {label: _judged(author, ballots, salt) for label, author in shown.items()}
    mark = mark_of([*sources.values(), *judged.values()], salt)
    parts = [
        _source(rank, label, sources[author], judged[label], mark)
        for rank, (label, author) in enumerate(shown.items(), 1)
    ]
    system = f"{prompts.synthesize}\n\n# Your role\n{role_of(chairman, prompts)}"
    shown_parts = "\n\n".join(parts)
    told = f"# Proposals\nThe mark of their tags is {mark}. Best first:\n\n{shown_parts}"
    user = f"{told}\n\n# Task\n{task_last(item)}"
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _closed_messages(
    item: Item, form: AnswerFormat, texts: Mapping[str, str], salt: str, prompts: Prompts
) -> list[dict[str, str]]:
    """The chat that asks for the answer of a closed task: as short as the task is, as that of a proposal."""
    mark = mark_of(texts.values(), salt)
    answers = "\n\n".join(fence(label, text, mark) for label, text in texts.items())
    wanted = f"{prompts.closed_synthesize} The mark of the tags is {mark}.\n\n{neutral(closed_instruction(form))}"
    user = f"# Answers of others\n{answers}\n\n# Task\n{task_last(item)}"
    return [{"role": "system", "content": wanted}, {"role": "user", "content": user}]


def _source(rank: int, label: str, text: str, critiques: str, mark: str) -> str:
    """A proposal as the chairman sees it, with what reviewers wrote of it, where they wrote anything."""
    lines = [f"Rank {rank}, proposal {label}:", fence(label, text, mark)]
    if critiques:
        lines.append(fence(label, critiques, mark, tag="critique"))
    return "\n".join(lines)


def _judged(author: str, ballots: Sequence[Review], salt: str) -> str:
    """What reviewers wrote of a proposal, one entry each."""
    found = critiques_of(author, ballots, salt)[:MAX_REASONS]
    return "\n".join("- " + " ".join(opinion.critique.split()) for opinion in found)

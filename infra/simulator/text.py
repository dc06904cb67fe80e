"""The words of an answer: a short technical proposal made from the task, the role and the seed.

The same prompt and seed give the same text, other seeds or roles another one. How much of the requirements
and the rubric it takes up depends on the seed, so that checks of the texts tell them apart. Its first line
says that it is simulated. A prompt in any other shape than the project's is read as one task.
"""

from __future__ import annotations

import keyword
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from infra.simulator import samples, wording

MIN_CHARS, MAX_CHARS = 900, 1_800
MAX_TASK_CHARS, MAX_TOPIC_CHARS, MAX_REQUIREMENT_CHARS, MAX_WORD_CHARS = 2_000, 90, 90, 24
WORDS_CHARS, STEPS_CHARS, RUBRIC_CHARS, NAME_CHARS = 170, 265, 60, 24
"""Room for the task's words, for the steps and for a name in code, so that a text stays in bounds."""

_WORD = re.compile(r"\w[\w+#-]*\w|\w")
_GIVEN = re.compile(r'<given-([0-9a-f]{16}) label="([a-z]+)">\n(.*?)\n</given-\1>', re.DOTALL)
"""What a task brings along, between tags that no text in it can close."""
_ROLE = re.compile(r"\b(DEV|QA|ARCHITECT|DEVOPS|DATA)\b")


@dataclass(frozen=True)
class Brief:
    """What a prompt asks for."""

    task: str
    role: str
    requirements: tuple[str, ...] = ()
    rubric: str = ""

    @property
    def words(self) -> list[str]:
        """The significant words of the task, in its order."""
        return list(significant_words(self.task))


def task_of(system: str, user: str) -> str:
    """The task between its tags, or under the first heading `# Task`, or behind all that it brings along.

    Of a prompt in any other shape the whole conversation.
    """
    if fenced := _section(user, "Task", first=True):
        return fenced
    ends = [found.end() for found in _GIVEN.finditer(user)]
    return user[max(ends, default=0) :].strip() or user.strip() or system.strip()


def read_brief(system: str, user: str) -> Brief:
    """The task, role and requirements of a conversation; of any, if need be."""
    task = task_of(system, user)
    lines = _section(user, "Requirements").splitlines()
    wanted = (line[2:].strip() for line in lines if line.startswith("- "))
    told = _section(system, "Your role") or _section(user, "Your role")
    named = told.partition("\n")[0].split()
    role = re.sub(r"[^\w-]", "", named[0]).upper()[:MAX_WORD_CHARS] if named else ""
    if not role:
        known = _ROLE.search(system[:MAX_TASK_CHARS])
        role = known.group() if known else "DEV"
    requirements = tuple(line[:MAX_REQUIREMENT_CHARS] for line in wanted)
    return Brief(task[:MAX_TASK_CHARS], role, requirements, _section(user, "Rubric")[:MAX_TASK_CHARS])


def compose(brief: Brief, seed: str) -> str:
    """The proposal, of MIN_CHARS to MAX_CHARS characters; `seed` stands for prompt and seed together."""
    chance = random.Random(seed)
    words = brief.words
    fill = _Filler(chance, words)
    role = wording.ROLES.get(brief.role, wording.ANY_ROLE)
    topic = brief.task.strip().partition("\n")[0][:MAX_TOPIC_CHARS].rstrip(" .:?!") or "nothing"
    opener = fill(chance.choice(wording.OPENERS))
    listed = ", ".join(chance.sample(words, len(words))) or "the question itself"
    analysis = f"{fill(chance.choice(wording.ANALYSIS))}{_judged(brief.rubric, chance)}"
    parts = [
        f"Simulated proposal ({brief.role}): {opener}",
        f"## Analysis\nAsked: {topic}. It turns on {listed}. {analysis}",
        f"## Approach\n{chance.choice(role.lens)}\n{_steps(brief, chance, fill)}",
        f"## Implementation\n{chance.choice(role.lead)}\n{_code(brief.role, chance, words)}",
    ]
    risks = (f"- {fill(risk)}" for risk in chance.sample(wording.RISKS, len(wording.RISKS)))
    return _with_risks("\n\n".join(parts), risks)


def remark(chance: random.Random, words: list[str]) -> str:
    """One sentence of judgement, for the texts inside structured output."""
    return f"Simulated: {_Filler(chance, words)(chance.choice(wording.REMARKS))}"


@lru_cache(maxsize=256)
def significant_words(task: str) -> tuple[str, ...]:
    """The first words of the task that carry meaning, in lower case, each once, WORDS_CHARS in all."""
    found = (word.lower()[:MAX_WORD_CHARS] for word in _WORD.findall(task))
    kept = (word for word in found if len(word) > 2 and not word.isdigit() and word not in wording.STOP_WORDS)
    return tuple(_fitting(dict.fromkeys(kept), WORDS_CHARS))


class _Filler:
    """Puts words of the task and one angle into phrases."""

    def __init__(self, chance: random.Random, words: list[str]) -> None:
        self._chance = chance
        self._words = [*words, "interface", "result"][: max(2, len(words))]
        self._angle = chance.choice(wording.ANGLES)

    def __call__(self, phrase: str) -> str:
        count = len(self._words)
        first = int(self._chance.random() * count)  # ten times as quick as sample()
        second = (first + 1 + int(self._chance.random() * (count - 1))) % count
        a, b = self._words[first], self._words[second]
        text = phrase.format(a=a, b=b, angle=self._angle)
        return text[0].upper() + text[1:]


def _section(text: str, name: str, first: bool = False) -> str:
    """What is given under a name, or else stands under the last heading `# name`, or the first; empty without one."""
    for _, label, body in _GIVEN.findall(text):
        if label == name.lower():
            return str(body).strip()
    text = _GIVEN.sub("", text)
    text, heading = f"\n{text}", f"\n# {name}"
    start = text.find(heading) if first else text.rfind(heading)
    if start < 0:
        return ""
    end = text.find("\n# ", start + 1)
    return text[start + 1 : end if end >= 0 else None].partition("\n")[2].strip()


def _steps(brief: Brief, chance: random.Random, fill: _Filler) -> str:
    share = chance.uniform(0.3, 1.0)
    covered = [wanted for wanted in brief.requirements if chance.random() < share]
    steps = [f"- {wanted.rstrip('.')}: {chance.choice(wording.MEANS)}." for wanted in covered]
    further = (f"- {fill(step)}" for step in chance.sample(wording.STEPS, 2))
    return "\n".join(_fitting([*steps, *further], STEPS_CHARS))


def _judged(rubric: str, chance: random.Random) -> str:
    """A sentence on some words of the rubric; how many depends on the seed."""
    share = chance.random()
    words = _fitting((word for word in significant_words(rubric) if chance.random() < share), RUBRIC_CHARS)
    named = ", ".join(words)
    return f" The rubric asks for {named}." if named else ""


def _fitting(texts: Iterable[str], room: int) -> Iterator[str]:
    """The first texts that have room together, in characters."""
    for text in texts:
        room -= len(text) + 2
        if room < 0:
            return
        yield text


def _code(role: str, chance: random.Random, words: list[str]) -> str:
    names = [word for word in words if word.isascii() and word.isidentifier() and not keyword.iskeyword(word)]
    stem = names[: chance.randint(2, 3)] or ["solve"]
    documented = chance.random() < 0.7
    fields = {
        "name": "_".join(stem)[:NAME_CHARS].rstrip("_"),
        "cls": "".join(word.capitalize() for word in stem[:2]),
        "arg": chance.choice(("items", "values", "entries", "payload")),
        "doc": f'    """Handle {" ".join(stem)} and nothing else."""\n' if documented else "",
        "slug": "-".join(stem).replace("_", "-")[:NAME_CHARS].rstrip("-"),
        "count": chance.randint(2, 9),
    }
    template = chance.choice(samples.BY_ROLE.get(role, samples.ANY_ROLE))
    blocks = f"```python\n{template.format(**fields)}\n```"
    if role == "DEVOPS":
        blocks += f"\n```yaml\n{samples.MANIFEST.format(**fields)}\n```"
    return blocks


def _with_risks(text: str, risks: Iterator[str]) -> str:
    text += "\n\n## Risks"
    for number, risk in enumerate(risks):
        enough = number >= 2 and len(text) >= MIN_CHARS
        if enough or (number and len(text) + len(risk) >= MAX_CHARS):
            break
        text += f"\n{risk}"
    return text

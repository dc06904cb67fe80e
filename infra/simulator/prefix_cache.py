"""The prefix cache of vLLM, counted instead of kept: which blocks of a prompt were seen before.

Observed with vLLM 0.32: only full blocks hit, the last token is always computed, so a prompt of 501 tokens
in blocks of 32 hits 480 the second time; `cache_salt` keeps tenants apart.
"""

from __future__ import annotations

from collections import OrderedDict

BLOCK_TOKENS = 32
CHARS_PER_TOKEN = 4
MAX_BLOCKS = 65_536
"""Blocks that are remembered, the least recently used leave first; about 8 MiB."""


def count_tokens(text: str) -> int:
    """Tokens of a text, at four characters each; 0 for an empty one."""
    return (len(text) + CHARS_PER_TOKEN - 1) // CHARS_PER_TOKEN


class PrefixCache:
    """Blocks of prompts by the hash of everything up to their end."""

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        """Room for so many blocks."""
        self._max_blocks = max_blocks
        self._seen: OrderedDict[int, None] = OrderedDict()

    def admit(self, prompt: str, salt: str | None = None) -> int:
        """Tokens of the prompt's beginning that were cached; afterwards all its full blocks are."""
        hit, running = 0, hash(salt)
        still_hit = True
        width = BLOCK_TOKENS * CHARS_PER_TOKEN
        for end in range(width, len(prompt), width):
            running = hash((running, prompt[end - width : end]))
            still_hit = still_hit and running in self._seen
            hit += still_hit
            self._seen[running] = None
            self._seen.move_to_end(running)
        while len(self._seen) > self._max_blocks:
            self._seen.popitem(last=False)
        return hit * BLOCK_TOKENS

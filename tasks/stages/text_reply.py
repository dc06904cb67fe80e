"""A text that a member wrote, read strictly: a proposal, its revision, or the synthesis."""

from __future__ import annotations

from blocks.chat import Completion
from tasks.council.closed_answers import answer_instruction, answer_schema, written_out
from tasks.council.council import Member
from tasks.council.models import Item
from tasks.council.prompts.delimiters import neutral
from tasks.council.proposal import Proposal
from tasks.council.replies import read_reply
from tasks.stages.member_stage import Fields, Messages, Question


class TextReply:
    """What the stages share that write a text: the text with thinking kept apart; without a text there is none."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def asked(self, item: Item, messages: Messages) -> Question:
        """The question; a closed one asks for structured output."""
        if item.answer_format is None:
            return Question(messages)
        schema = answer_schema(item.answer_format, self._member.max_tokens)
        form = {"name": "answer", "schema": schema, "strict": True}
        extra = {"response_format": {"type": "json_schema", "json_schema": form}}
        return Question(messages, extra, in_words=neutral(answer_instruction(item.answer_format)))

    def written(self, item: Item, completion: Completion, revisions: tuple[str, ...] = ()) -> Fields:
        """The fields of the final answer; `revisions` are the earlier texts, oldest first."""
        reply = read_reply(completion.content, completion.finish_reason, completion.reasoning)
        content = written_out(reply.content, item.answer_format) if item.answer_format else reply.content
        proposal = Proposal(
            author_id=self._member.agent_id,
            author_role=self._member.role,
            content=content,
            model=completion.model,
            tokens=completion.usage.completion_tokens,
            finish_reason=completion.finish_reason or "none",
            reasoning=reply.reasoning,
            revisions=revisions,
        )
        return {
            "status": reply.status,
            "proposal": proposal if reply.content else None,
            "error": reply.reason,
            "error_type": None if reply.reason is None else reply.status.value,
        }

    def again(self, _question: Question, _completion: Completion, _fields: Fields) -> Question | None:
        """A text stands as it came."""
        return None

"""What sampling replies to prompts will take, known before a model is loaded: calls, tokens, what fits.

Pure. Does not depend on engines; `longest` is what an engine will say of its model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunesmith.api.generation import EngineSpec, SamplingSpec
from tunesmith.data.report import counted


@dataclass(frozen=True, slots=True)
class ExpectedReplies:
    """Numbers of one sampling. `replies` are asked for in all, `reply_tokens` is the most they can have.

    `longest` is the most tokens of a prompt with its reply, None if unknown. `too_long` are the positions of
    prompts that get no reply, `short_of_room` is how many others leave less than `maxNewTokens` for theirs.
    """

    prompts: int
    replies: int
    prompt_tokens: int
    reply_tokens: int
    longest: int | None
    too_long: tuple[int, ...]
    short_of_room: int

    def sentences(self, samples: int) -> list[str]:
        """Return the numbers in words; `samples` is how many replies each prompt gets."""
        each = "one each" if samples == 1 else f"{samples:,} each"
        asked = self.prompts - len(self.too_long)
        lines = [
            f"{counted(self.replies, 'reply', 'replies')} to {counted(asked, 'prompt')}, {each}.",
            f"{counted(self.prompt_tokens, 'token')} of prompts, at most {self.reply_tokens:,} of replies.",
        ]
        if self.too_long:
            lines.append(
                f"Without a reply, since prompt and reply have at most {self.longest:,} tokens "
                f"(prompt_too_long): {counted(len(self.too_long), 'prompt')}."
            )
        if self.short_of_room:
            lines.append(
                "With room for fewer than maxNewTokens of a reply, since prompt and reply have at most "
                f"{self.longest:,} tokens: {counted(self.short_of_room, 'prompt')}."
            )
        return lines


def expected_replies(lengths: Iterable[int], longest: int | None, sampling: SamplingSpec) -> ExpectedReplies:
    """Return what replies to prompts of these lengths in tokens take."""
    known = list(map(int, lengths))
    most = sys.maxsize if longest is None else longest
    fitting = [length for length in known if length < most]
    rooms = [min(sampling.max_new_tokens, most - length) for length in fitting]
    return ExpectedReplies(
        prompts=len(known),
        replies=len(fitting) * sampling.num_samples,
        prompt_tokens=sum(fitting),
        reply_tokens=sum(rooms) * sampling.num_samples,
        longest=longest,
        too_long=tuple(at for at, length in enumerate(known) if length >= most),
        short_of_room=sum(room < sampling.max_new_tokens for room in rooms),
    )


def longest_reply(engine: EngineSpec | None, positions: int | None, tokenizer: Any) -> int | None:
    """Return the most tokens of a prompt with its reply, as the engine will see it; None if unknown.

    `positions` are the model's, `tokenizer` is that of transformers. vLLM's maxModelLen goes before.
    """
    if engine is not None and engine.vllm is not None:
        return engine.vllm.max_model_len or positions
    said = (positions, tokenizer.model_max_length)
    return min((int(each) for each in said if each and 1 < each < sys.maxsize), default=None)

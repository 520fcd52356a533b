"""Generate one reply with a model in this process, for previews and for chat.

The prompt is rendered as in training; the reply ends at the template's end-of-turn token or at a stop text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tunesmith.api.generation import PreviewGeneration, PreviewSpec
from tunesmith.engines.reply_text import StopText
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Message

OnText = Callable[[str], None]


def preview_messages(preview: PreviewSpec) -> list[Message]:
    """Return the conversation of a preview, with the suffix appended to its system message."""
    messages = [Message(m.role, m.content) for m in preview.messages or []]
    if preview.user is not None:
        messages = [Message("user", preview.user)]
    if preview.system is not None:
        messages.insert(0, Message("system", preview.system))
    if preview.system_suffix:
        if messages[0].role != "system":
            messages.insert(0, Message("system", ""))
        text = "\n".join(part for part in (messages[0].content, preview.system_suffix) if part)
        messages[0] = Message("system", text)
    return messages


class _TextStream:
    """Collects token ids from transformers; a streamer and a stopping criterion in one."""

    def __init__(self, tokenizer: ChatTokenizer, stop: StopText, stop_ids: frozenset[int], on_text: OnText):
        self._tokenizer, self._stop, self._stop_ids, self._on_text = tokenizer, stop, stop_ids, on_text
        self._ids: list[int] = []
        self._shown = 0
        self._prompt = True
        self.text = ""
        self.finished = False

    def put(self, value: Any) -> None:
        """Receive the prompt first, then one id at a time."""
        if self._prompt:
            self._prompt = False
            return
        self._ids += [id_ for id_ in value.flatten().tolist() if id_ not in self._stop_ids]
        text = self._tokenizer.decode_whole(self._ids)
        end = self._stop.end(text)
        self.finished = end is not None
        self.text = text if end is None else text[:end]
        self._show(len(self.text) if self.finished else self._stop.safe(self.text))

    def end(self) -> None:
        """Show what was held back."""
        self._show(len(self.text))

    def _show(self, limit: int) -> None:
        if limit > self._shown:
            self._on_text(self.text[self._shown : limit])
            self._shown = limit

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        import torch

        return torch.full((input_ids.shape[0],), self.finished, dtype=torch.bool, device=input_ids.device)


def reply(
    model: Any,
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    settings: PreviewGeneration,
    *,
    seed: int = 0,
    on_text: OnText = lambda text: None,
) -> str:
    """Return the model's reply. `on_text` gets each piece as it is generated. Torch's RNG state is kept."""
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList

    prompt = tokenizer.prompt_ids(messages)
    stream = _TextStream(tokenizer, StopText(settings.stop_tokens), tokenizer.stop_ids, on_text)
    sampled = settings.temperature > 0
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=sampled,
        temperature=settings.temperature if sampled else None,
        top_p=settings.top_p if sampled else None,
        top_k=0 if sampled else None,
        repetition_penalty=settings.repetition_penalty,
        eos_token_id=sorted(tokenizer.stop_ids),
        pad_token_id=min(tokenizer.stop_ids, default=0),
    )
    was_training = model.training
    model.eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        ids = torch.tensor([prompt], device=model.device)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            streamer=stream,
            stopping_criteria=StoppingCriteriaList([stream]),
        )
    model.train(was_training)
    return stream.text.strip()

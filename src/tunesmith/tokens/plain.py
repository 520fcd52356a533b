"""Plain text to samples: all tokens are labels, long texts are split into chunks with no loss of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from tunesmith.errors import ModelError, UsageError
from tunesmith.tokens.conversation import Document, Sample
from tunesmith.tokens.encode import Encoder, RecordError
from tunesmith.tokens.truncation import LengthLimits


def chunks(encoder: Encoder, text: str, max_length: int) -> Iterator[Sample]:
    """Yield chunks of at most `max_length` ids; each token of `text`, and EOS at its end, is a label once.

    The first token of a sequence is predicted from nothing and cannot be a label, so every chunk starts
    with context of weight 0: BOS if the tokenizer uses one (in the first chunk EOS otherwise, which separates
    documents), and in later chunks the last token of the chunk before. The ids of a long text are never all
    in memory.
    """
    if encoder.eos_id is None:
        raise ModelError("The model's tokenizer has no EOS token, so it cannot learn where a text ends.")
    bos = [encoder.bos_id] if encoder.starts_with_bos and encoder.bos_id is not None else []
    if max_length < len(bos) + 2:
        raise UsageError(f"maxLength {max_length} is too small for any text.")
    return _chunks(chain(encoder.pieces(text), [[encoder.eos_id]]), bos, encoder.eos_id, max_length)


def _chunks(pieces: Iterable[list[int]], bos: list[int], eos: int, max_length: int) -> Iterator[Sample]:
    lead, waiting = bos or [eos], []
    for ids in pieces:
        waiting += ids
        at = 0
        while len(waiting) - at >= max_length - len(lead):
            labels = waiting[at : at + max_length - len(lead)]
            yield _sample(lead, labels)
            at += len(labels)
            lead = [*bos, labels[-1]]
        del waiting[:at]
    if waiting:
        yield _sample(lead, waiting)


def _sample(lead: list[int], labels: list[int]) -> Sample:
    return Sample(ids=[*lead, *labels], weights=[0.0] * len(lead) + [1.0] * len(labels))


def completion(encoder: Encoder, document: Document, limits: LengthLimits) -> Sample:
    """Return a sample of a prompt, with its ids as in inference, and the text after it with EOS, as labels.

    A prompt that is too long is truncated at its beginning, as far as the limits allow. Raises RecordError.
    """
    if encoder.eos_id is None:
        raise ModelError("The model's tokenizer has no EOS token, so the end of a text cannot be taught.")
    bos = [encoder.bos_id] if encoder.starts_with_bos and encoder.bos_id is not None else []
    pair, lead = encoder.pair(document.prompt, document.text), bos or [encoder.eos_id]
    labels = [*pair.reply, encoder.eos_id]
    room = limits.max_length - len(lead) - len(labels)
    cut = max(0, len(pair.prompt) - max(room, 1))
    if cut and not limits.truncate_prompt:
        raise RecordError(
            f"prompt and completion have {len(lead) + len(pair.prompt) + len(labels)} tokens, more than "
            f"maxLength {limits.max_length}, and truncatePrompt is false"
        )
    if room < 1 and not limits.truncate_reply:
        raise RecordError(f"the completion alone has {len(labels)} tokens; maxLength is {limits.max_length}")
    context = [*lead, *pair.prompt[cut:]]
    labels = labels[: limits.max_length - len(context)]
    return Sample([*context, *labels], [0.0] * len(context) + [1.0] * len(labels), cut)

"""Plain text to samples: all tokens are labels, long texts are cut into chunks with no loss of tokens."""

from __future__ import annotations

from tunesmith.errors import ModelError, UsageError
from tunesmith.tokens.conversation import Sample
from tunesmith.tokens.encode import Encoder


def chunks(encoder: Encoder, text: str, max_length: int) -> list[Sample]:
    """Chunks of at most `max_length` ids in which each token of `text`, and EOS at its end, is a label once.

    The first token of a sequence is predicted from nothing and cannot be a label, so every chunk opens
    with context of weight 0: BOS where the tokenizer uses one (else EOS, which separates documents), and in
    later chunks also the last token of the chunk before.
    """
    if encoder.eos_id is None:
        raise ModelError("The model's tokenizer has no EOS token, so the end of a text cannot be taught.")
    ids = [*encoder.ids(text), encoder.eos_id]
    bos = [encoder.bos_id] if encoder.starts_with_bos and encoder.bos_id is not None else []
    if max_length < len(bos) + 2:
        raise UsageError(f"maxLength {max_length} is too small to hold any text.")
    lead = bos or [encoder.eos_id]
    samples: list[Sample] = []
    at = 0
    while at < len(ids):
        labels = ids[at : at + max_length - len(lead)]
        samples.append(Sample(ids=[*lead, *labels], weights=[0.0] * len(lead) + [1.0] * len(labels)))
        at += len(labels)
        lead = [*bos, ids[at - 1]]
    return samples

"""The ids of a conversation's turns: prompts exactly as in inference, replies as training labels them.

Does not depend on messages, templates and lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith.tokens.conversation import Message, Sample
from tunesmith.tokens.encode import Encoder, PromptReply, RecordError
from tunesmith.tokens.thoughts import CLOSES_THOUGHT, thought_of
from tunesmith.tokens.turn_text import TurnText


def encode_turns(encoder: Encoder, texts: Sequence[TurnText], eot: str) -> list[PromptReply]:
    """Return the ids of each turn's prompt and reply; `eot` is the token that ends replies.

    If each prompt starts with the turns before it, only the last prompt is encoded, and then split: text
    before and after a control token is encoded independently, so each part has the ids of its own text.
    """
    pieces = _pieces(texts) if encoder.joins and len(texts) > 1 else None
    pairs = pieces and _cut(encoder, pieces, texts[-1], eot)
    return pairs or [encoder.pair(text.prompt, text.reply) for text in texts]


def _pieces(texts: Sequence[TurnText]) -> list[tuple[str, str]] | None:
    """Return the context and reply each turn adds; None unless every prompt starts with the turns before."""
    pieces: list[tuple[str, str]] = []
    done = ""
    for text in texts:
        if not text.prompt.startswith(done):
            return None
        pieces.append((text.prompt[len(done) :], text.reply))
        done = text.prompt + text.reply
    return pieces


def _cut(
    encoder: Encoder, pieces: Sequence[tuple[str, str]], last: TurnText, eot: str
) -> list[PromptReply] | None:
    whole, reply = encoder.many([last.prompt, last.reply])
    apart = encoder.separates(eot)
    pairs = _cut_at(encoder, pieces[:-1], whole, eot) if apart else _joined(encoder, pieces, whole)
    return [*pairs, PromptReply(whole, reply)] if pairs is not None else None


def _cut_at(
    encoder: Encoder, pieces: Sequence[tuple[str, str]], whole: list[int], eot: str
) -> list[PromptReply] | None:
    """Split `whole` at the end-of-turn tokens; None if a reply's first token merges with what precedes it."""
    eot_id = encoder.added[eot]
    ends = [at for at, id_ in enumerate(whole) if id_ == eot_id]
    pairs: list[PromptReply] = []
    done = 0
    for context, reply in pieces:
        done += context.count(eot)
        if reply.count(eot) != 1:
            return None
        start = ends[done - 1] + 1 if done else 0
        frame = encoder.frame(context.rpartition(eot)[2])
        begin, end = start + len(frame), ends[done]
        if whole[start:begin] != frame or begin > end:
            return None
        pairs.append(PromptReply(whole[:begin], whole[begin : end + 1]))
        done += 1
    return pairs


def _joined(
    encoder: Encoder, pieces: Sequence[tuple[str, str]], whole: list[int]
) -> list[PromptReply] | None:
    """Return the turns from pieces encoded one by one, for tokens that may absorb adjacent text.

    None if their ids do not concatenate to `whole`.
    """
    parts = encoder.many([piece for both in pieces for piece in both][:-1])
    if [id_ for ids in parts for id_ in ids] != whole:
        return None
    return list(_pairs(parts[:-1]))


def _pairs(parts: Sequence[list[int]]) -> Iterator[PromptReply]:
    ids: list[int] = []
    for context, reply in zip(parts[::2], parts[1::2], strict=True):
        ids = ids + context
        yield PromptReply(ids, reply)
        ids = ids + reply


def lone_sample(pair: PromptReply, labels: list[float], cut_tokens: int) -> Sample:
    """Return a sample of one turn; the tokens of its reply have the weights `labels`."""
    return Sample(pair.prompt + pair.reply, [0.0] * len(pair.prompt) + labels, cut_tokens)


def append_sample(samples: list[Sample], pair: PromptReply, labels: list[float], cut_tokens: int) -> None:
    """Add a turn as a separate sample, or to the last sample if its prompt continues that one's ids."""
    if samples and pair.prompt[: len(samples[-1].ids)] == samples[-1].ids:
        last = samples.pop()
        weights = last.weights + [0.0] * (len(pair.prompt) - len(last.ids)) + labels
        cut_tokens = max(cut_tokens, last.cut_tokens)
    else:
        samples.append(lone_sample(pair, labels, cut_tokens))
        return
    samples.append(Sample(pair.prompt + pair.reply, weights, cut_tokens))


def reply_labels(
    encoder: Encoder, reply: Message, text: TurnText, full: PromptReply, kept: int, *, learn: bool
) -> list[float]:
    """Return the weights of a reply's first `kept` tokens; those of its thoughts are 0 unless `learn`.

    Raises RecordError if nothing but thoughts is kept.
    """
    thoughts = 0 if learn else thought_tokens(encoder, reply, text, full)
    if thoughts >= kept:
        raise RecordError("nothing but thoughts is left of a reply, and thoughts are context")
    return [0.0] * thoughts + [reply.weight] * (kept - thoughts)


def thought_tokens(encoder: Encoder, reply: Message, text: TurnText, full: PromptReply) -> int:
    """Return how many of a rendered reply's tokens come before its answer; 0 if it has no thoughts.

    A token that contains both the end of the thoughts and the start of the answer is trained on.
    """
    split = thought_of(reply)
    if split is None:
        return 0
    thought, answer = split[1].strip(), split[2].strip()
    start = text.reply.find(thought)
    end = text.reply.find(answer, start + len(thought)) if start >= 0 else -1
    if end < 0:
        raise RecordError(
            "the chat template changes thoughts so that their end cannot be found; learn or drop them"
        )
    if not answer:  # calls follow
        _, found, rest = text.reply[end:].partition(CLOSES_THOUGHT)
        end = len(text.reply) - len(rest.lstrip()) if found else end
    starts = encoder.cuts(text.reply) if encoder.tokenizer.is_fast else []
    if len(starts) == len(full.reply):
        return sum(start <= end for start in [*starts[1:], len(text.reply)])
    return len(encoder.ids(text.reply[:end]))


def trained_turns(messages: Sequence[Message], train_on: str) -> list[int]:
    """Return the positions of the assistant turns to train on, ascending, at least one."""
    turns = [at for at, message in enumerate(messages) if message.role == "assistant"]
    if not turns:
        raise RecordError("the conversation has no assistant turn")
    if train_on == "lastAssistant":
        turns = turns[-1:]
    trained = [at for at in turns if messages[at].weight > 0]
    if not trained:
        which = "the last assistant turn" if train_on == "lastAssistant" else "every assistant turn"
        raise RecordError(
            f"{which} has weight 0 (train: false or loss_weight: 0), so nothing is left to train"
        )
    if any(not messages[at].content.strip() and not messages[at].calls for at in trained):
        raise RecordError("an assistant turn to be trained is empty")
    return trained

"""What replies to prompts will take: the sampling loop's rules, counted before a model is loaded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.api.generation import SamplingSpec
from tunesmith.data.prompts.expected import expected_replies

LENGTHS = st.lists(st.integers(1, 60), max_size=30)


@given(LENGTHS, st.none() | st.integers(1, 50), st.integers(1, 4), st.integers(1, 20))
def test_the_numbers_are_those_of_the_loop(
    lengths: list[int], longest: int | None, samples: int, new: int
) -> None:
    """Reply by reply, as `sampling.loop` and the engines decide."""
    found = expected_replies(lengths, longest, SamplingSpec(num_samples=samples, max_new_tokens=new))
    replies = tokens = short = 0
    too_long = []
    for at, length in enumerate(lengths):
        if longest is not None and length >= longest:
            too_long.append(at)
            continue
        room = new if longest is None else min(new, longest - length)
        short += room < new
        replies += samples
        tokens += samples * room
    assert (found.replies, found.reply_tokens, found.short_of_room) == (replies, tokens, short)
    assert found.too_long == tuple(too_long)
    assert found.prompts == len(lengths)
    assert found.prompt_tokens == sum(lengths) - sum(lengths[at] for at in too_long)
    assert len(found.sentences(samples)) == 2 + bool(too_long) + bool(short)

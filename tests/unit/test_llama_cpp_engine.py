"""How much room llama.cpp gets for prompts and replies."""

from tests.cases import each


@each(
    ("prompt", "new", "positions", "context", "at_once"),
    [
        (100, 28, 512, 128, 4),
        (12_000, 2_048, 32_768, 14_048, 2),
        (40_000, 2_048, None, 42_048, 1),
        (500, 100, 512, 512, 4),
    ],
)
def test_llama_cpp_has_room_for_the_longest_prompt(prompt, new, positions, context, at_once):
    """A prompt without room has no reply, which would count against the form."""
    from tunesmith.engines.llama_cpp import engine

    assert engine.context_for(prompt, new, positions) == context
    assert engine.at_once(context) == at_once

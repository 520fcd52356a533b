"""Where a streamed reply ends, and how much of it may be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.api.generation import PreviewSpec
from tunesmith.engines.hf.generate import preview_messages
from tunesmith.engines.reply_text import StopText

letters = st.text("ab\n", max_size=12)


@given(letters, st.lists(st.text("ab\n", max_size=4), max_size=3))
def test_streaming_shows_exactly_what_stands_before_the_first_stop(text, stops):
    stop = StopText(stops)
    shown = ""
    for length in range(1, len(text) + 1):
        so_far = text[:length]
        end = stop.end(so_far)
        limit = stop.safe(so_far) if end is None else end
        assert limit >= len(shown)  # nothing shown is taken back
        shown = so_far[: max(limit, len(shown))]
        if end is not None:
            break
    at = [text.find(s) for s in stops if s and s in text]
    ends = [text.find(s) + len(s) for s in stops if s and s in text]
    if not at:
        shown = text  # what was held back is shown at the end
        assert shown == text
        return
    first = min(ends)
    seen = [text.find(s) for s in stops if s and s in text[:first]]
    assert shown == text[: min(seen)]


@pytest.mark.parametrize(
    ("text", "stops", "end", "safe"),
    [
        ("hello", [], None, 5),
        ("hello", ["User:"], None, 5),
        ("hello\nUs", ["\nUser:"], None, 5),
        ("hello\nUser: x", ["\nUser:"], 5, 13),
        ("a。b", ["。"], 1, 3),
        ("xab", ["abc", "bd"], None, 1),
        ("x", [""], None, 1),
    ],
)
def test_cases(text, stops, end, safe):
    stop = StopText(stops)
    assert stop.end(text) == end
    if end is None:
        assert stop.safe(text) == safe


@pytest.mark.parametrize(
    ("preview", "expected"),
    [
        ({"user": "hi"}, [("user", "hi")]),
        ({"user": "hi", "system": "be"}, [("system", "be"), ("user", "hi")]),
        ({"user": "hi", "system": "be", "systemSuffix": "kind"}, [("system", "be\nkind"), ("user", "hi")]),
        ({"user": "hi", "systemSuffix": "kind"}, [("system", "kind"), ("user", "hi")]),
        (
            {
                "messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}],
                "systemSuffix": "x",
            },
            [("system", "be\nx"), ("user", "hi")],
        ),
    ],
)
def test_preview_messages(preview, expected):
    messages = preview_messages(PreviewSpec.model_validate({"name": "p", **preview}))
    assert [(m.role, m.content) for m in messages] == expected

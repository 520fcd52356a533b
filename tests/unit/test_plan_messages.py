"""Messages of others, made fit for a status."""

from tunesmith.plan.messages import fit

HOSTILE = {
    "an escape": ("a\x1b[2Jb", "a␛[2Jb"),
    "a reversed line": ("a\u202eb", "a\ufffdb"),
    "lines": ("a\n  b\tc", "a b c"),
    "half a character": ("a\ud800", "a\ufffd"),
    "a token": ("GET https://r.example/v2?sig=abc&x=1: 403", "GET https://r.example/v2?… 403"),
    "a password": ("https://me:pass@r.example/v2", "https://…@r.example/v2"),
    "a webhook": ('Post "https://w.svc:443/m?timeout=10s": refused', 'Post "https://w.svc:443/m?…": refused'),
    "long": ("x" * 99_999, "x" * 1024),
    "no text": ({"a": 1}, ""),
}


def test_messages_of_others_are_made_fit():
    assert {name: fit(text) for name, (text, _) in HOSTILE.items()} == {
        name: wanted for name, (_, wanted) in HOSTILE.items()
    }

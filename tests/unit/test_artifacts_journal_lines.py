"""Lines of a journal: what is torn is cut, what is damaged is named; keys kept in eight bytes each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.artifacts.journal import lines as lines
from tunesmith.artifacts.journal.key_set import DIGEST_SIZE, KeySet, digest_of, split_digests
from tunesmith.errors import CorruptObjectError, StoragePermanentError

RECORDS = [("a", {"text": "三年"}), ("b", {"text": "two\nlines \udc80", "n": [1.5, None]}), ("c", {})]


def encoded(records=RECORDS):
    """The lines of a part."""
    made = [lines.encode_header("journal-1")]
    for key, record in records:
        made.append(lines.encode_record(key, record, lines.checksum_of(made[-1])))
    return made


def decoded(raw):
    found = list(lines.read_lines(raw, "here"))
    return [lines.decode_record(line.payload) for line in found[1:]]


def length(tmp_path, data):
    path = tmp_path / "00000000.jsonl"
    path.write_bytes(data)
    return lines.valid_length(path)


def test_round_trip():
    assert decoded(encoded()) == RECORDS
    header, *rows = lines.read_lines(encoded(), "here")
    assert lines.decode_header(header.payload, "here") == "journal-1"
    assert [lines.decode_key(row.payload) for row in rows] == ["a", "b", "c"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()], ids=["nan", "inf", "object"])
def test_what_json_cannot_hold_is_no_record(value):
    with pytest.raises((ValueError, TypeError)):
        lines.encode_record("a", {"x": value}, 0)


def test_torn_at_every_byte_the_lines_before_stay(tmp_path):
    made = encoded()
    data, ends = b"".join(made), [0]
    for line in made:
        ends.append(ends[-1] + len(line))
    for cut in range(len(data) + 1):
        assert length(tmp_path, data[:cut]) == max(end for end in ends if end <= cut)


@pytest.mark.parametrize("hole", [b"\x00" * 300, b"\n\n\n", b"deadbeef []\n", b"00000000 []\n" * 3], ids=repr)
def test_what_a_power_cut_leaves_at_the_end_is_cut(tmp_path, hole):
    data = b"".join(encoded())
    assert length(tmp_path, data + hole) == len(data)


def test_a_byte_changed_anywhere_is_found_and_named(tmp_path):
    made = encoded([*RECORDS, ("d", {}), ("e", {})])
    data = b"".join(made)
    for place in range(len(data)):
        broken = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        number = sum(place >= len(b"".join(made[:count])) for count in range(1, 6)) + 1
        with pytest.raises(CorruptObjectError, match=rf"here is damaged in line {number} \(at byte"):
            list(lines.read_lines(broken.splitlines(keepends=True), "here"))
        if number <= 3:  # a line break that is gone takes three lines along; more is no torn end
            with pytest.raises(CorruptObjectError, match=rf"damaged in line {number} .*Remove"):
                length(tmp_path, broken)


@pytest.mark.parametrize(
    "order",
    [(0, 2, 3), (0, 2, 1, 3), (0, 1, 1, 2, 3), (1, 2, 3)],
    ids=["lost", "moved", "twice", "no header"],
)
def test_a_whole_line_in_the_wrong_place_is_found(order):
    made = encoded()
    with pytest.raises(CorruptObjectError, match="damaged in line"):
        list(lines.read_lines([made[place] for place in order], "here"))


def test_another_version_asks_for_an_update():
    with pytest.raises(StoragePermanentError, match="another version"):
        lines.decode_header(b'{"journal":"x","version":2}', "here")
    with pytest.raises(CorruptObjectError, match="not a journal file"):
        lines.decode_header(b"[]", "here")


@given(st.lists(st.text(st.characters(), max_size=20)))
def test_a_key_set_is_a_set(keys):
    ours, theirs = KeySet(), set()
    for key in keys:
        assert (key in ours) == (key in theirs)
        assert ours.add(digest_of(key)) == (key not in theirs)
        theirs.add(key)
        assert len(ours) == len(theirs)
    assert all(key in ours for key in theirs)


def test_keys_that_share_a_bucket():
    ours, start = KeySet(), b"\x01\x02"
    numbers = [5, 0, 2**64 - 1, 6, 4, 5, 1 << 63]
    assert [ours.add(start + number.to_bytes(8, "big")) for number in numbers] == [True] * 5 + [False, True]
    assert not ours.has(start + (7).to_bytes(8, "big"))
    assert not ours.has(b"\x02\x01" + (5).to_bytes(8, "big"))


def test_digests_in_a_row():
    keys = ["a", "三", "\udc80"]
    joined = b"".join(digest_of(key) for key in keys)
    assert len(joined) == 3 * DIGEST_SIZE
    assert list(split_digests(joined)) == [digest_of(key) for key in keys]

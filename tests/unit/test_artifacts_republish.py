"""A finished output replaced by another: whatever is killed, a reader finds one of them whole."""

import json

import pytest

from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import fetch_verified, publish, read_manifest
from tunesmith.artifacts.republish import fetch_matching, finish_republish, republish
from tunesmith.errors import CorruptObjectError, OutputConflictError

OLD = {"final_model/w.bin": "weights", "report.html": "old", "evaluation/0/base/x": "1", "logs/a": "log"}
NEW = {"final_model/w.bin": "weights", "report.html": "new", "evaluation/1/base/y": "2", "logs/a": "log"}
STAGING = "evaluating/abc"


def write(folder, files):
    for key, text in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_text(text)
    return folder


@pytest.fixture
def store(tmp_path):
    found = open_store(f"file://{tmp_path / 'out'}")
    publish(found, "", write(tmp_path / "old", OLD), extra={"kind": "x"})
    found.put("fingerprint.json", b"{}")
    return found


def replace_it(store, folder, **changes):
    old = read_manifest(store, "")
    return republish(
        store, write(folder, NEW), old, STAGING, {"kind": "x"}, within=["evaluation/"], kept="final_model/"
    )


def read(store, folder):
    """What a reader finds by the manifest, every file checked."""
    fetch_verified(store, "", folder)
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


class Dying:
    """A store whose process is killed before the given number of changes have been made."""

    def __init__(self, store, left):
        self._store, self.left = store, left

    def __getattr__(self, name):
        return getattr(self._store, name)

    def _live(self):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1

    def put(self, *arguments, **options):
        self._live()
        return self._store.put(*arguments, **options)

    def put_file(self, *arguments):
        self._live()
        return self._store.put_file(*arguments)

    def delete(self, keys):
        for key in keys:
            self._live()
            self._store.delete([key])


def test_the_new_output_takes_the_old_ones_place(store, tmp_path):
    digest = replace_it(store, tmp_path / "new")
    assert read(store, tmp_path / "read") == NEW
    assert {entry.key for entry in store.list()} == {*NEW, "manifest.json", "fingerprint.json"}
    assert read_manifest(store, "").digest == digest == finish_republish(store, ["evaluation/"])
    assert all("at" not in file for file in json.loads(store.read("manifest.json"))["files"])


def test_killed_anywhere_a_reader_finds_the_old_or_the_new_output(store, tmp_path):
    """And what was begun can be done again, by the same job or after `finish_republish`."""
    seen = []
    for steps in range(40):
        out = open_store(f"file://{tmp_path / f'out-{steps}'}")
        publish(out, "", tmp_path / "old", extra={"kind": "x"})
        try:
            replace_it(Dying(out, steps), tmp_path / "new")
        except KeyboardInterrupt:
            found = read(out, tmp_path / f"read-{steps}")
            assert found in (OLD, NEW), steps
            seen.append(found == NEW)
            if found == NEW:
                finish_republish(out, ["evaluation/"])
            else:
                replace_it(out, tmp_path / "new")
        else:
            break
        assert read(out, tmp_path / f"again-{steps}") == NEW, steps
        assert {entry.key for entry in out.list()} == {*NEW, "manifest.json"}, steps
    assert seen == sorted(seen)
    assert seen.count(False) >= 3
    assert seen.count(True) >= 4


def test_a_reader_that_had_the_old_manifest_begins_again(store, tmp_path):
    class Slow:
        """The output is replaced between a reader's look at the manifest and its files."""

        def __init__(self):
            self.replaced = False

        def __getattr__(self, name):
            return getattr(store, name)

        def size(self, key):
            if not self.replaced:
                self.replaced = True
                replace_it(store, tmp_path / "new")
            return store.size(key)

    assert read(Slow(), tmp_path / "read") == NEW


def test_other_weights_are_never_published(store, tmp_path):
    folder = write(tmp_path / "new", {"final_model/w.bin": "others"})
    with pytest.raises(CorruptObjectError, match=r"w\.bin is not the file that was published"):
        republish(
            store, folder, read_manifest(store, ""), STAGING, {}, within=["evaluation/"], kept="final_model/"
        )
    assert read(store, tmp_path / "read") == OLD


def test_of_two_jobs_that_replace_one_output_the_second_is_refused(store, tmp_path):
    old = read_manifest(store, "")
    replace_it(store, tmp_path / "new")
    with pytest.raises(OutputConflictError, match="changed by another job in the meantime"):
        republish(
            store, tmp_path / "old", old, "evaluating/other", {}, within=["evaluation/"], kept="final_model/"
        )
    assert read(store, tmp_path / "read") == NEW


def test_parts_of_an_output_are_fetched_and_checked(store, tmp_path):
    fetch_matching(
        store, read_manifest(store, ""), tmp_path / "some", lambda key: key.startswith("final_model/")
    )
    assert [p.name for p in (tmp_path / "some").rglob("*") if p.is_file()] == ["w.bin"]
    store.put("final_model/w.bin", b"broken!")
    with pytest.raises(CorruptObjectError, match=r"w\.bin"):
        fetch_matching(store, read_manifest(store, ""), tmp_path / "more", lambda key: True)


LATER = {"report.html": "newer", "export/merged/w.bin": "whole", "export/merged/config.json": "{}"}


def add_to(store, folder):
    finish_republish(store, ["export/"])
    return republish(
        store, write(folder, LATER), read_manifest(store, ""), "exporting/files", {"kind": "x"},
        within=["export/"], kept="final_model/", also=lambda key: True, direct="export/",
    )  # fmt: skip


def test_files_are_added_and_the_others_stay(store, tmp_path):
    digest = add_to(store, tmp_path / "new")
    assert read_manifest(store, "").digest == digest
    assert read(store, tmp_path / "read") == OLD | LATER
    assert not list(store.list("exporting/"))


def test_a_kill_while_files_are_added_leaves_the_old_output_or_the_new(store, tmp_path):
    """What makes a folder loadable is sent last, and a second start finishes it."""
    for left in range(40):
        dying = Dying(store, left)
        try:
            add_to(dying, tmp_path / f"new-{left}")
        except KeyboardInterrupt:
            found = read(store, tmp_path / f"read-{left}")
            assert found in (OLD, OLD | LATER), left
            if store.exists("export/merged/config.json"):
                assert store.exists("export/merged/w.bin")
            continue
        break
    assert left > 4
    assert read(store, tmp_path / "read") == OLD | LATER

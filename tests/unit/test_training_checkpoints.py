"""Checkpoints in an output: published whole, verified, limited, and resumed by any number of processes."""

import json

import pytest
from ranks import ALONE
from tests.unit.ranks import on_ranks

from tunesmith.artifacts.open import open_store
from tunesmith.errors import OutputConflictError, StoragePermanentError
from tunesmith.training.checkpoints import Checkpoints, Ranks
from tunesmith.training.uploads import Uploads


@pytest.fixture
def output(tmp_path):
    return open_store(f"file://{tmp_path / 'out'}")


def write(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(text)
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "state").write_text(text * 2)
    return folder


def publish(checkpoints, step, folder, best=None):
    uploads = Uploads(checkpoints)
    uploads.begin(step, folder, best)
    uploads.finish()


def published(output, tmp_path, steps, keep=10, best=None):
    checkpoints = Checkpoints(output, keep, ALONE)
    for step in steps:
        publish(checkpoints, step, write(tmp_path / f"made-{step}", f"w{step}"), best)
    return checkpoints


def test_the_newest_comes_back_as_it_was(output, tmp_path):
    checkpoints = published(output, tmp_path, [2, 10, 4])
    assert checkpoints.steps() == [10, 4, 2]
    assert checkpoints.newest(tmp_path / "got") == 10
    assert (tmp_path / "got" / "checkpoint-10" / "model.safetensors").read_text() == "w10"
    assert (tmp_path / "got" / "checkpoint-10" / "sub" / "state").read_text() == "w10w10"


def test_nothing_there_is_a_beginning(output, tmp_path):
    assert Checkpoints(output, 3, ALONE).newest(tmp_path / "got") is None


def test_one_without_a_manifest_is_not_there(output, tmp_path):
    checkpoints = published(output, tmp_path, [2])
    output.put("checkpoint-4/model.safetensors", b"half of it")
    output.put("checkpoint-x/manifest.json", b"{}")
    output.put("checkpoint-6/deep/manifest.json", b"{}")
    assert checkpoints.steps() == [2]
    assert checkpoints.newest(tmp_path / "got") == 2


def _shorten(output):
    output.put("checkpoint-4/model.safetensors", b"w")


def _flip(output):
    output.put("checkpoint-4/model.safetensors", b"w5")


def _lose(output):
    output.delete(["checkpoint-4/sub/state"])


def _spoil_manifest(output):
    output.put("checkpoint-4/manifest.json", output.read("checkpoint-4/manifest.json")[:40])


DAMAGE = [_shorten, _flip, _lose, _spoil_manifest]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_passed_over(output, tmp_path, damage, caplog):
    checkpoints = published(output, tmp_path, [2, 4])
    damage(output)
    assert checkpoints.newest(tmp_path / "got") == 2
    assert "Skipping damaged checkpoint 4" in caplog.text
    assert not (tmp_path / "got" / "checkpoint-4").exists()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_made_again(output, tmp_path, damage):
    """The run that passed it over comes to the same step, with other times in its metrics."""
    checkpoints = published(output, tmp_path, [2, 4])
    damage(output)
    checkpoints.newest(tmp_path / "got")
    publish(checkpoints, 4, write(tmp_path / "again", "again"))
    assert checkpoints.newest(tmp_path / "got2") == 4
    assert (tmp_path / "got2" / "checkpoint-4" / "model.safetensors").read_text() == "again"


def test_a_damaged_one_takes_no_place_of_the_limit(output, tmp_path):
    """Else the good ones made after it would be deleted in its favour."""
    checkpoints = published(output, tmp_path, [2, 9])
    output.put("checkpoint-9/model.safetensors", b"xx")
    limited = Checkpoints(output, 1, ALONE)
    assert limited.newest(tmp_path / "got") == 2
    publish(limited, 3, write(tmp_path / "made-3", "w3"))
    assert limited.newest(tmp_path / "got3") == 3
    assert checkpoints.steps() == [3]


def test_what_was_never_finished_goes_with_the_old_ones(output, tmp_path):
    """Uploads that a kill or a dead storage broke off; newer ones may be under way elsewhere."""
    for step in (1, 3, 9):
        output.put(f"checkpoint-{step}/model.safetensors", b"half of it")
    published(output, tmp_path, [4])
    assert {entry.key.partition("/")[0] for entry in output.list()} == {"checkpoint-4", "checkpoint-9"}


def test_all_ranks_know_what_is_there(output, tmp_path):
    published(output, tmp_path, [2, 4, 6])
    output.put("checkpoint-6/model.safetensors", b"xx")
    checkpoints = Checkpoints(output, 2, ALONE)
    checkpoints.newest(tmp_path / "got")
    assert checkpoints.known == (4, 2)
    publish(checkpoints, 8, write(tmp_path / "made-8", "w8"))
    assert checkpoints.known == (8, 4)


def test_all_damaged_is_a_beginning(output, tmp_path):
    checkpoints = published(output, tmp_path, [4])
    _flip(output)
    assert checkpoints.newest(tmp_path / "got") is None


def test_the_same_step_can_be_published_anew(output, tmp_path):
    """An attempt that was thought dead may have published the step this one comes to."""
    checkpoints = published(output, tmp_path, [4])
    publish(checkpoints, 4, write(tmp_path / "other", "other"))
    assert checkpoints.newest(tmp_path / "got") == 4
    assert (tmp_path / "got" / "checkpoint-4" / "model.safetensors").read_text() == "other"


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(1, None, [10]), (2, None, [10, 8]), (2, 4, [10, 8, 4]), (2, 10, [10, 8]), (9, 2, [10, 8, 6, 4, 2])],
)
def test_save_total_limit_keeps_the_last_and_the_best(output, tmp_path, keep, best, left):
    assert published(output, tmp_path, [2, 4, 6, 8, 10], keep, best).steps() == left
    objects = {entry.key.partition("/")[0] for entry in output.list("checkpoint-")}
    assert objects == {f"checkpoint-{step}" for step in left}


def test_old_ones_go_only_after_the_new_one_is_there(output, tmp_path):
    published(output, tmp_path, [2])
    actions = []

    class Watched:
        """Notes the order of writing and deleting."""

        def __getattr__(self, name):
            return getattr(output, name)

        def put(self, key, data, **options):
            actions.append(f"put {key}")
            return output.put(key, data, **options)

        def delete(self, keys):
            keys = list(keys)
            actions.extend(f"delete {key}" for key in keys if output.exists(key))
            output.delete(keys)

    publish(Checkpoints(Watched(), 1, ALONE), 4, write(tmp_path / "made-4", "w4"))
    assert actions[:2] == ["put checkpoint-4/manifest.json", "delete checkpoint-2/manifest.json"]
    assert all(action.startswith("delete checkpoint-2/") for action in actions[2:])


def test_a_store_that_takes_nothing_loses_nothing(output, tmp_path):
    published(output, tmp_path, [2])

    class Closed:
        """Takes no file."""

        def __getattr__(self, name):
            return getattr(output, name)

        def put_file(self, *_):
            raise StoragePermanentError("Access denied.")

    with pytest.raises(StoragePermanentError, match="denied"):
        publish(Checkpoints(Closed(), 1, ALONE), 4, write(tmp_path / "made-4", "w4"))
    assert Checkpoints(output, 1, ALONE).newest(tmp_path / "got") == 2


def test_another_number_of_processes_resumes(output, tmp_path):
    published(output, tmp_path, [2])

    def work(ranks):
        assert Checkpoints(output, 3, ranks).newest(tmp_path / "got") == 2

    on_ranks(3, 1, work)
    assert (tmp_path / "got" / "checkpoint-2" / "model.safetensors").read_text() == "w2"


def test_what_is_tied_to_a_number_is_refused_before_anything_is_fetched(output, tmp_path):
    published(output, tmp_path, [2])
    two = Checkpoints(output, 3, Ranks(0, 0, 2, lambda value: [value, None]), tied_by="a.setting")
    said = (
        r"made by 1 process, and this run has 2: a\.setting ties it to that number\. Run with 1 process, or"
    )
    with pytest.raises(OutputConflictError, match=said):
        two.newest(tmp_path / "got")
    assert not (tmp_path / "got").exists()
    assert Checkpoints(output, 3, ALONE, tied_by="a.setting").newest(tmp_path / "got") == 2


def test_two_nodes_make_one_checkpoint(output, tmp_path):
    """Each node uploads what its ranks wrote, the manifest names all of it, and each node gets it back."""
    got = {}

    def work(ranks):
        node = tmp_path / f"node-{ranks.rank // 2}"
        folder = node / "made"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"rng_state_{ranks.rank}.pth").write_text(str(ranks.rank))
        checkpoints = Checkpoints(output, 3, ranks)
        publish(checkpoints, 4, folder)
        got[ranks.rank] = checkpoints.newest(node / "got")
        assert len(list((node / "got" / "checkpoint-4").iterdir())) == 4

    on_ranks(4, 2, work)
    assert set(got.values()) == {4}
    assert json.loads(output.read("checkpoint-4/manifest.json"))["world"] == 4

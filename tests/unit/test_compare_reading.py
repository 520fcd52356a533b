"""Outputs as they are in a folder, read to be compared."""

import json

import pytest
import yaml
from good_manifests import FINE_TUNE, changed

from tunesmith.artifacts.folder import FolderStore
from tunesmith.artifacts.location import FolderLocation
from tunesmith.artifacts.publish import publish_manifest
from tunesmith.errors import UsageError
from tunesmith.local.compare import OutputPlace, find_outputs, read_outputs

SPEC = {"training": {"seed": 1}}


def output_in(folder, *, spec=SPEC, finished=True, files=()):
    """Write an output: `files` are texts or values by key."""
    contents = {"fingerprint.json": {"spec": spec, "data": "d", "model": "m"}, **dict(files)}
    for key, value in contents.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
    if finished:
        publish_manifest(FolderStore(FolderLocation(folder)), "", [])
    return OutputPlace(folder.as_uri())


def read(*places, said=None):
    return read_outputs(places, places[0], [].append if said is None else said.append)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def evaluated(name, *, accepted, rejected):
    replies = {
        "name": name,
        "models": [{"name": "base"}, {"name": "tuned"}],
        "compared": {"subject": "tuned"},
    }
    return {
        "result.json": {"job": {"name": "mine"}, "evaluation": [replies]},
        "metrics.jsonl": lines({"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 1.5}),
        "validation_losses.json": {"step": 1, "records": 0, "digest": "", "losses": []},
        "evaluation/0/tuned/sampled_data.json": [{"id": each} for each in accepted],
        "evaluation/0/tuned/rejected.jsonl": lines(*({"id": each} for each in rejected)),
    }


def test_a_finished_training_has_its_curve_and_the_replies_of_its_evaluations(tmp_path):
    files = evaluated("sums", accepted=["p1", "p1", "p2"], rejected=["p2", "p3"])
    one, other = (output_in(tmp_path / name, files=files.items()) for name in "ab")
    found, again = read(one, other)
    assert found.scores == {"sums": {"p1": (2, 2), "p2": (1, 2), "p3": (0, 1)}}
    assert [row["step"] for row in found.rows] == [1, 1]
    assert (found.name, again.name) == ("mine (a)", "mine (b)")
    assert found.finished
    assert found.validation["step"] == 1


def test_an_unfinished_training_has_the_curve_of_its_newest_checkpoint(tmp_path):
    files = {
        "checkpoint-2/metrics.jsonl": lines({"step": 1, "loss": 3.0}),
        "checkpoint-10/metrics.jsonl": lines({"step": 1, "loss": 3.0}, {"step": 10, "loss": 2.0}),
        "checkpoint-2/validation_losses.json": {"step": 2},
        "before.json": {"validationLoss": 4.0},
    }
    half = output_in(tmp_path / "half", finished=False, files=files.items())
    found, empty = read(half, output_in(tmp_path / "begun", finished=False))
    assert (found.state, empty.state) == ("unfinished, step 10", "unfinished")
    assert found.before == {"validationLoss": 4.0}
    assert (found.validation, empty.validation) == ({"step": 2}, {})


def test_a_sampling_is_read_by_its_replies(tmp_path):
    files = {
        "sampling_stats.json": {"accepted": 1},
        "sampled_data.json": [{"id": "p"}],
        "rejected.jsonl": lines({"id": "q"}),
    }
    places = [output_in(tmp_path / name, spec={"prompts": {}}, files=files.items()) for name in "ab"]
    assert read(*places)[0].scores == {"": {"p": (1, 1), "q": (0, 1)}}


def test_outputs_of_different_kinds_are_refused_by_name(tmp_path):
    one = output_in(tmp_path / "a")
    other = output_in(tmp_path / "b", spec={"prompts": {}}, finished=False)
    with pytest.raises(UsageError, match=r"a is of a FineTuneJob, file:.*/b of a RejectionSampleJob"):
        read(one, other)


def test_a_place_that_is_no_output_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"There is no output of a job at file:.*/empty"):
        read(output_in(tmp_path / "a"), OutputPlace((tmp_path / "empty").as_uri()))


def test_jobs_of_a_manifest_that_have_not_begun_are_left_out_and_named(tmp_path):
    documents = [
        changed(FINE_TUNE, {"metadata.name": name, "spec.output": {"uri": (tmp_path / name).as_uri()}})
        for name in ("a", "b", "later")
    ]
    manifest = tmp_path / "jobs.yaml"
    manifest.write_text(yaml.safe_dump_all(documents))
    places, said = find_outputs([str(manifest)]), []
    output_in(tmp_path / "a")
    with pytest.raises(UsageError, match="Too few outputs exist"):
        read(*places)
    output_in(tmp_path / "b")
    assert [each.name for each in read(*places, said=said)] == ["a", "b"]
    assert said == [f"not there yet, left out: later ({(tmp_path / 'later').as_uri()})"]

"""The folder of a job: attempts, locking, what is kept; and the environment of its processes."""

import json
import os
import subprocess
import sys

import pytest
from good_manifests import DIALOGUE, FINE_TUNE

from tunesmith import names
from tunesmith.api.manifest import parse_document
from tunesmith.errors import UsageError
from tunesmith.jobs.world import read_world
from tunesmith.local.launch import Devices, pod_environment
from tunesmith.local.workdir import MAX_BYTES, JobFolder, WorkDir, read_object, shown_path


@pytest.fixture
def folder(tmp_path):
    made = JobFolder(tmp_path / "job")
    made.path.mkdir()
    return made


def test_attempts_are_counted_until_one_ends(folder):
    assert [folder.attempt() for _ in range(3)] == [1, 2, 3]
    folder.ended()
    folder.ended()
    assert folder.attempt() == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"attempt": null}', "\xff"])
def test_a_damaged_count_is_no_first_attempt(folder, text):
    """A first attempt may wipe the output; where one was under way that must not happen."""
    (folder.path / "attempt.json").write_text(text, "latin-1")
    assert [folder.attempt(), folder.attempt()] == [2, 3]


HOLD = """
import sys
from pathlib import Path
from tunesmith.local.workdir import JobFolder
with JobFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_run_at_a_time(folder):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=r"Another `tunesmith run` is running this job"), folder.locked():
        pass
    holder.communicate()
    with folder.locked():
        pass


def test_what_a_job_keeps_is_for_its_user_alone(folder):
    with folder.locked():
        assert [each.stat().st_mode & 0o777 for each in (folder.path, folder.cache)] == [0o700] * 2


def test_finished_files_move_out_of_the_scratch_folder(folder):
    assert folder.keep_output() is False
    folder.output.mkdir()
    (folder.output / "old").touch()
    made = folder.scratch / "launch-1/output"
    made.mkdir(parents=True)
    (made / "result.json").write_text("{}")
    assert folder.keep_output() is True
    assert [path.name for path in folder.output.iterdir()] == ["result.json"]
    assert not folder.scratch.exists()


def test_what_an_earlier_attempt_left_is_no_result_of_the_next(folder):
    (folder.scratch / "launch-1/output").mkdir(parents=True)
    folder.empty_scratch()
    assert folder.scratch.is_dir()
    assert folder.keep_output() is False


def test_jobs_do_not_share_folders(tmp_path):
    work = WorkDir(tmp_path / "work")
    jobs = [parse_document(document, "m", 1) for document in (FINE_TUNE, DIALOGUE)]
    assert work.job(jobs[0]).path == tmp_path / "work/jobs/research/tune-ftj"
    assert work.job(jobs[0]).path != work.job(jobs[1]).path
    assert work.s3 == tmp_path / "work/s3"


def test_paths_are_shown_as_one_would_type_them(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown_path(tmp_path / "here/a/b") == "a/b"
    assert shown_path(tmp_path / "there") == str(tmp_path / "there")


def environment(folder, **changes):
    devices = Devices(**{"processes": 3, "engines": 1, "gpus": False, **changes.pop("devices", {})})
    settings = {"attempt": 2, "cores": 8, "progress_port": 1234, "page_key": "k", **changes}
    return pod_environment(folder, devices=devices, **settings)


def test_the_environment_is_the_pods(folder):
    """What the program reads (world.py) and what torchrun reads (PET_*) are both there."""
    variables = environment(folder)
    world = read_world({**variables, "RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1"})
    assert (world.attempt, world.progress_port, world.progress_host) == (2, 1234, "127.0.0.1")
    assert world.page_key == "k"
    assert (world.scratch, world.log_dir) == (folder.scratch, folder.logs)
    assert world.termination_log == folder.termination
    assert (variables["PET_NPROC_PER_NODE"], variables["PET_NNODES"], variables["PET_NODE_RANK"]) == (
        "3",
        "1",
        "0",
    )
    assert variables["PET_MASTER_PORT"] == variables["MASTER_PORT"]
    assert all(isinstance(value, str) for value in variables.values())
    # Every variable that the pod template sets with a constant is set here too.
    in_pod = {names.ENV_ATTEMPT, names.ENV_SCRATCH, names.ENV_PROGRESS_PORT, names.ENV_TERMINATION_LOG}
    assert in_pod <= variables.keys()


@pytest.mark.parametrize("what", ["processes", "engines"])
@pytest.mark.parametrize(
    ("number", "cores", "threads"), [(1, 8, "8"), (3, 8, "2"), (16, 8, "1"), (1, 1, "1")]
)
def test_cores_are_shared_out(folder, what, number, cores, threads):
    variables = environment(folder, devices={"processes": 1, what: number}, cores=cores)
    assert variables["OMP_NUM_THREADS"] == threads


def test_gpus_are_hidden_from_a_job_without(folder):
    assert environment(folder)["CUDA_VISIBLE_DEVICES"] == ""
    with_gpus = environment(folder, devices={"gpus": True})
    assert not {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"} & with_gpus.keys()


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"3", b"null", b'"x"', b"\xff\xfe", b"[" * MAX_BYTES, b'{"a":' * 20000, b"NaN,"],
    ids=["empty", "open", "list", "number", "null", "text", "bytes", "deep-list", "deep-object", "trailing"],
)
def test_what_is_no_object_says_nothing(text):
    assert read_object(text) == {}


def test_an_object():
    assert read_object(json.dumps({"phase": "training", "x": os.sep}).encode())["phase"] == "training"


SHORT = {"reason": "OutOfMemory", "message": "", "permanent": False}
# id: the last attempt's termination message
NOT_SHORT = {
    "none": None,
    "permanent": SHORT | {"permanent": True},
    "another": SHORT | {"reason": "Diverged"},
    "no object": [],
    "unknown whether it is permanent": {"reason": "OutOfMemory"},
}


def test_attempts_that_ran_out_of_memory_are_recorded_until_the_job_has_ended(folder):
    assert (folder.attempt(), folder.out_of_memory()) == (1, ())
    folder.note_out_of_memory()
    folder.note_out_of_memory()
    assert (folder.attempt(), folder.out_of_memory()) == (2, (1,))
    assert (folder.attempt(), folder.out_of_memory()) == (3, (1,))
    folder.note_out_of_memory()
    assert (folder.attempt(), folder.out_of_memory()) == (4, (1, 3))
    folder.ended()
    assert (folder.attempt(), folder.out_of_memory()) == (1, ())


def test_what_a_killed_command_did_not_record_is_recorded_by_the_next_one(folder):
    folder.attempt()
    folder.termination.write_text(json.dumps(SHORT))
    assert (folder.attempt(), folder.out_of_memory()) == (2, (1,))
    assert (folder.attempt(), folder.out_of_memory()) == (3, (1,))


@pytest.mark.parametrize("moment", ["written", "removed", "counted"])
def test_a_command_killed_while_it_records_counts_nothing_twice(folder, monkeypatch, moment):
    """Killed when the record is written, when the message is removed as well, or when the next is counted."""
    folder.attempt()
    folder.termination.write_text(json.dumps(SHORT))
    with monkeypatch.context() as patch:
        if moment == "written":
            patch.setattr(type(folder.termination), "unlink", killed)
        elif moment == "removed":
            replace = type(folder.termination).replace
            times = iter([replace, killed])
            patch.setattr(type(folder.termination), "replace", lambda *a: next(times)(*a))
        else:
            folder.attempt()
        if moment != "counted":
            with pytest.raises(KeyboardInterrupt):
                folder.attempt()
    number = folder.attempt()
    assert (number, folder.out_of_memory()) == (3 if moment == "counted" else 2, (1,))


def killed(*arguments, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize("word", NOT_SHORT.values(), ids=NOT_SHORT)
def test_other_ends_are_not_recorded(folder, word):
    folder.attempt()
    if word is not None:
        folder.termination.write_text(json.dumps(word))
    assert (folder.attempt(), folder.out_of_memory()) == (2, ())

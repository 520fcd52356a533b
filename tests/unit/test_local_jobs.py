"""`list`, `logs` and `status` of jobs on this machine, from what a run leaves in its folders."""

import fcntl
import json
from contextlib import contextmanager

import pytest
from tests.cases import each

from tunesmith.errors import UsageError
from tunesmith.local.console import Console
from tunesmith.local.job_files import last_lines, new_lines
from tunesmith.local.local_jobs import LocalState, find_job, local_jobs
from tunesmith.local.local_status import page_of, show_list, show_log, show_status
from tunesmith.local.workdir import WorkDir


def job_in(home, name="mine", *, kind="FineTuneJob", short="ftj", namespace="default", termination=None):
    folder = home / "jobs" / namespace / f"{name}-{short}"
    (folder / "logs").mkdir(parents=True)
    run = {
        "kind": kind,
        "name": name,
        "namespace": namespace,
        "spec": {"output": {"uri": f"s3://models/{name}"}},
    }
    (folder / "run.json").write_text(json.dumps(run))
    if termination is not None:
        (folder / "termination.json").write_text(json.dumps(termination))
    return folder


@contextmanager
def running(folder):
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


DONE = {"reason": "Succeeded", "message": "all well"}
WRONG = {"reason": "BadData", "message": "37 bad\nrecords", "permanent": True}
LATER = {"reason": "Stopped", "message": "Stopped after step 3", "permanent": False}


@each("termination, state", [
    (DONE, LocalState.SUCCEEDED), (WRONG, LocalState.FAILED), (LATER, LocalState.STOPPED),
    (None, LocalState.STOPPED), ([], LocalState.STOPPED),
])  # fmt: skip
def test_a_job_that_has_ended_is_as_its_termination_says(tmp_path_factory, termination, state):
    home = tmp_path_factory.mktemp("home")
    job_in(home, termination=termination)
    assert find_job(WorkDir(home), "mine").state == state


def test_a_job_whose_processes_live_is_running_whatever_was_before(tmp_path):
    folder = job_in(tmp_path, termination=DONE)
    with running(folder):
        assert find_job(WorkDir(tmp_path), "mine").state == LocalState.RUNNING


def test_what_cannot_be_read_is_no_job(tmp_path):
    job_in(tmp_path)
    broken = job_in(tmp_path, "broken")
    (broken / "run.json").write_text("{")
    job_in(tmp_path, "foreign", kind="Other")
    assert [job.name for job in local_jobs(WorkDir(tmp_path))] == ["mine"]


def test_a_name_that_several_have_must_be_told_apart(tmp_path):
    job_in(tmp_path, "a")
    job_in(tmp_path, "a", namespace="team")
    with pytest.raises(UsageError, match="say default/a-ftj or team/a-ftj"):
        find_job(WorkDir(tmp_path), "a")
    assert find_job(WorkDir(tmp_path), "team/a").namespace == "team"
    with pytest.raises(UsageError, match="There are: a"):
        find_job(WorkDir(tmp_path), "b")


def test_the_list_has_a_line_per_job(tmp_path, capsys):
    job_in(tmp_path, "a", termination=DONE)
    job_in(tmp_path, "b\x1b[2J", termination=WRONG)
    assert show_list(tmp_path, Console(width=160)) == 0
    said = capsys.readouterr().out
    assert "succeeded" in said
    assert "failed: BadData" in said
    assert "b␛[2J" in said
    assert "s3://models/a" in said


def test_a_work_dir_without_jobs_says_so(tmp_path, capsys):
    assert show_list(tmp_path, Console(width=200)) == 0
    assert "There are no jobs in" in capsys.readouterr().out


def test_the_status_says_why_and_what_then(tmp_path, capsys):
    job_in(tmp_path, "a", termination=LATER)
    show_status("a", tmp_path, False, Console(width=200))
    said = capsys.readouterr().out
    assert "stopped: Stopped" in said
    assert "Stopped after step 3" in said
    assert "run it again to resume" in said


def test_the_report_of_a_finished_job_is_what_is_opened(tmp_path):
    folder = job_in(tmp_path, "a", termination=DONE)
    with pytest.raises(UsageError, match="no page and no report"):
        page_of(find_job(WorkDir(tmp_path), "a"))
    (folder / "output").mkdir()
    (folder / "output/report.html").write_text("x")
    assert page_of(find_job(WorkDir(tmp_path), "a")).endswith("/a-ftj/output/report.html")
    (folder / "page").write_text("http://127.0.0.1:1/key/")
    with running(folder):
        assert page_of(find_job(WorkDir(tmp_path), "a")) == "http://127.0.0.1:1/key/"


def logged(folder, text, name="rank-0.log"):
    with (folder / "logs" / name).open("a") as file:
        file.write(text)


def test_the_log_is_printed_whole_or_its_last_lines(tmp_path):
    folder = job_in(tmp_path)
    logged(folder, "".join(f"line {n} \x1b[31m\n" for n in range(1000)))
    for tail, count in ((None, 1000), (3, 3), (0, 0), (5000, 1000)):
        lines = []
        assert show_log("mine", tmp_path, 0, tail, False, lines.append) == 0
        assert len(lines) == count
        assert not lines or lines[-1] == "line 999 ␛[31m"


def test_a_log_that_is_not_there_is_named_with_those_that_are(tmp_path):
    folder = job_in(tmp_path)
    logged(folder, "x", "rank-1.log")
    with pytest.raises(UsageError, match=r"no log rank-4\.log; there are: rank-1\.log"):
        show_log("mine", tmp_path, 4, None, False, print)


def test_lines_longer_than_expected_are_found_too(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join("x" * 5000 + f"{n}\n" for n in range(50)))
    assert [line[-2:] for line in last_lines(path, 3)] == ["47", "48", "49"]


def test_following_ends_with_the_job_and_misses_nothing(tmp_path):
    path, other = tmp_path / "launcher.log", tmp_path / "rank-0.log"
    path.write_text("before\n")
    steps = iter([lambda: path.write_text("before\nsecond\nthi"), lambda: path.open("a").write("rd\n"),
                  lambda: other.write_text("fourth\nlast")])  # fmt: skip
    left = [3]

    def lasting():
        return left[0] > 0

    def sleep(_):
        left[0] -= 1
        next(steps)()

    def current():
        return other if other.exists() else path

    assert list(new_lines(current, len("before\n"), lasting, 0, sleep)) == [
        "second",
        "third",
        "fourth",
        "last",
    ]


def test_a_log_that_was_begun_anew_is_read_from_its_start(tmp_path):
    path = tmp_path / "log"
    path.write_text("old old old\n")
    left = [1]

    def sleep(_):
        left[0] = 0
        path.write_text("new\n")

    assert list(new_lines(lambda: path, 12, lambda: left[0] > 0, 0, sleep)) == ["new"]

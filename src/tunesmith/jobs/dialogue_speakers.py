"""Who plays the roles of a DialogueGenJob: servers that are asked, engines that are started in the pod."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date
from functools import partial

from tunesmith.api.dialogue import BatchSpec, DialogueGenSpec, EndpointSpec, RoleSpec
from tunesmith.api.generation import SamplingSpec
from tunesmith.artifacts.journal import Journal
from tunesmith.artifacts.journal_rows import Rows
from tunesmith.dialogue.batch import BatchSpeaker
from tunesmith.dialogue.batch_client import BatchClient
from tunesmith.dialogue.batch_journal import BatchJournal
from tunesmith.dialogue.budget import Budget, Price
from tunesmith.dialogue.endpoint import Endpoint
from tunesmith.dialogue.growth import ROLES, Role
from tunesmith.dialogue.lull import Lull
from tunesmith.dialogue.speakers import EngineSpeaker, endpoint_speaker
from tunesmith.dialogue.turns import Speaker
from tunesmith.engines.files import fetch_files
from tunesmith.engines.sampler import Engine
from tunesmith.jobs.inputs import hub_token, storage_options
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.resting_engine import RestingEngine
from tunesmith.jobs.secrets import secret
from tunesmith.jobs.world import World
from tunesmith.tokens.chat import ChatTokenizer


async def open_speakers(
    spec: DialogueGenSpec,
    world: World,
    progress: Progress,
    day: date,
    budget: Budget | None,
    batching: Batching,
    opened: AsyncExitStack,
) -> dict[Role, Speaker]:
    """The speaker of each role: one per endpoint, whatever it plays; `opened` closes them.

    `day` is for chat templates that name it.
    """
    roles: dict[Role, RoleSpec] = {role: getattr(spec.roles, str(role)) for role in ROLES}
    made: dict[str, Speaker] = {}
    for name in dict.fromkeys(role.endpoint for role in roles.values()):
        endpoint = spec.endpoints[name]
        if endpoint.openai is not None:
            api_key = secret(endpoint.openai.api_key_secret_ref)
            timeout = float(endpoint.limits.timeout_seconds)
            server = Endpoint(name, endpoint.openai, api_key, timeout=timeout)
            await opened.enter_async_context(server)
            if endpoint.openai.batch is not None:
                made[name] = await batching.speaker(server, endpoint, endpoint.openai.batch, budget)
            else:
                made[name] = endpoint_speaker(server, endpoint, budget)
        else:
            progress.update(phase=f"starting endpoint {name}")
            longest = max(role.max_tokens for role in roles.values() if role.endpoint == name)
            start = partial(_engine, spec, world, day, name, endpoint, longest)
            engine, tokenizer = await start()
            if uses_batches(spec):
                engine = RestingEngine(name, engine, partial(_anew, start), batching.lull)
            opened.push_async_callback(engine.close)
            made[name] = EngineSpeaker(engine, tokenizer, endpoint.limits.max_retries)
    return {role: made[each.endpoint] for role, each in roles.items()}


def uses_batches(spec: DialogueGenSpec) -> bool:
    """Whether a role is played through a batch interface."""
    used = [spec.endpoints[getattr(spec.roles, str(role)).endpoint] for role in ROLES]
    return any(each.openai is not None and each.openai.batch is not None for each in used)


async def _anew(start: Callable[[], Awaitable[tuple[Engine, ChatTokenizer]]]) -> Engine:
    return (await start())[0]


@dataclass(frozen=True, slots=True)
class Batching:
    """What endpoints that are asked in batches need of the job: its journal, its name, when all wait."""

    lull: Lull
    journal: Journal
    earlier: Rows
    job: str

    async def speaker(
        self, server: Endpoint, endpoint: EndpointSpec, batch: BatchSpec, budget: Budget | None
    ) -> BatchSpeaker:
        """The endpoint, with what earlier processes have sent to it."""
        process = None if budget is None else budget.process
        send = partial(asyncio.to_thread, self.journal.send)
        journal = BatchJournal(server.name, self.earlier.get, self.journal, send, process)
        speaker = BatchSpeaker(
            server,
            BatchClient(server),
            self.lull,
            journal,
            max_wait=batch.max_wait_seconds,
            max_retries=endpoint.limits.max_retries,
            price=Price.at(endpoint),
            budget=budget,
            labels={"job": self.job},
        )
        await speaker.start()
        return speaker


async def _engine(
    spec: DialogueGenSpec, world: World, day: date, name: str, endpoint: EndpointSpec, longest: int
) -> tuple[Engine, ChatTokenizer]:
    """The engine of an endpoint, for replies of up to `longest` tokens; each request has its temperature."""
    settings = endpoint.vllm or endpoint.transformers
    assert settings is not None
    options, folder = storage_options(spec.storage), world.node_folder / f"model-{name}"
    files = fetch_files(settings.model, spec.hub, options, folder, hub_token(spec))
    tokenizer = ChatTokenizer.load(files.tokenizer, today=day)
    sampling = SamplingSpec(num_samples=1, temperature=1.0, top_p=1.0, max_new_tokens=longest)
    seed = (spec.seeds.shuffle_seed or 0) + world.attempt
    if endpoint.vllm is not None:
        from tunesmith.engines.vllm import open_vllm

        engine = await open_vllm(files, settings.model, tokenizer, endpoint.vllm, sampling, seed=seed)
        return engine, tokenizer
    from tunesmith.engines.batched import open_transformers

    assert endpoint.transformers is not None
    return open_transformers(
        files, settings.model, tokenizer, endpoint.transformers, sampling, seed=seed
    ), tokenizer

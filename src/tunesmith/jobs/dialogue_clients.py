"""Clients for the roles of a DialogueGenJob: servers, and engines that are started in the pod."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import date
from functools import partial
from itertools import count

from tunesmith.api.dialogue import DialogueGenSpec, EndpointSpec, RoleSpec
from tunesmith.api.generation import SamplingSpec
from tunesmith.artifacts.store import storage_options
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.clients import EndpointClient, EngineClient, endpoint_client
from tunesmith.dialogue.endpoint import Endpoint
from tunesmith.dialogue.limits import Pause
from tunesmith.dialogue.state import ROLES, Role
from tunesmith.dialogue.turns import ModelClient
from tunesmith.engines.engine import Engine
from tunesmith.engines.files import fetch_files
from tunesmith.engines.restarting import RestartingEngine
from tunesmith.errors import StuckError, TemporaryError
from tunesmith.jobs.dialogue_batches import Batching, uses_batches
from tunesmith.jobs.progress import Progress, Trouble, format_time
from tunesmith.jobs.rows_notes import RowsNotes
from tunesmith.jobs.secrets import hub_token, secret
from tunesmith.jobs.termination import end_now
from tunesmith.jobs.world import World
from tunesmith.names import Reason
from tunesmith.tokens.chat import ChatTokenizer

_LOOK_SECONDS = 1.0
SHOWN_SECONDS = 15.0
"""Seconds after which a pause is reported."""
_LONG_SECONDS = 120.0  # longer than any pause but those that a server requests


async def open_clients(
    spec: DialogueGenSpec,
    world: World,
    progress: Progress,
    day: date,
    budget: Budget | None,
    batching: Batching,
    opened: AsyncExitStack,
    rows: RowsNotes,
) -> dict[Role, ModelClient]:
    """Return the client of each role: one per endpoint, whatever its roles; `opened` closes them.

    `day` is for chat templates that print it; `rows` are those of engines.
    """
    roles: dict[Role, RoleSpec] = {role: getattr(spec.roles, str(role)) for role in ROLES}
    made: dict[str, ModelClient] = {}
    engines: list[Engine] = []
    most = rows.most() if any(not spec.endpoints[role.endpoint].openai for role in roles.values()) else None
    for name in dict.fromkeys(role.endpoint for role in roles.values()):
        endpoint = spec.endpoints[name]
        if endpoint.openai is not None:
            api_key = secret(endpoint.openai.api_key_secret_ref)
            timeout = float(endpoint.limits.timeout_seconds)
            server = Endpoint(name, endpoint.openai, api_key, timeout=timeout)
            await opened.enter_async_context(server)
            if endpoint.openai.batch is not None:
                made[name] = await batching.client(server, endpoint, endpoint.openai.batch, budget)
            else:
                made[name] = endpoint_client(server, endpoint, budget)
        else:
            progress.update(phase=f"starting endpoint {name}")
            longest = max(role.max_tokens for role in roles.values() if role.endpoint == name)
            start = partial(_engine, spec, world, progress, day, name, endpoint, longest, opened, most)
            engine, tokenizer = await start()
            engines.append(engine)
            if uses_batches(spec):
                engine = batching.resting(name, engine, start)
            opened.push_async_callback(engine.close)
            made[name] = EngineClient(engine, tokenizer, endpoint.limits.max_retries)
    rows.have(min((engine.at_once for engine in engines), default=None))
    return {role: made[each.endpoint] for role, each in roles.items()}


def tell_pauses(
    progress: Progress, clients: Mapping[Role, ModelClient], clock: Callable[[], float] = time.time
) -> None:
    """Report which endpoints are paused, and since when; short pauses are not reported."""
    limiters = {
        client.server.name: client.limiter
        for client in clients.values()
        if isinstance(client, EndpointClient)
    }
    for name, limiter in limiters.items():
        progress.trouble(f"endpoint {name}", trouble_of(name, limiter.pause(), clock()))


def trouble_of(name: str, pause: Pause | None, now: float) -> Trouble | None:
    """Return the trouble for a pause, its times in seconds from `now`, which is in seconds since 1970."""
    if pause is None or max(0.0, pause.until) - pause.since < SHOWN_SECONDS:
        return None
    why = "limits the rate of requests" if pause.refused else "fails or does not respond"
    when = "with growing pauses" if pause.until < _LONG_SECONDS else f"at {format_time(now + pause.until)}"
    reason = Reason.ENDPOINT_PAUSED if pause.refused else Reason.ENDPOINT_UNAVAILABLE
    message = f"Endpoint {name} {why}. No other requests are sent to it meanwhile; it is retried {when}."
    return Trouble.of(reason, message, now + pause.since)


async def _engine(
    spec: DialogueGenSpec,
    world: World,
    progress: Progress,
    day: date,
    name: str,
    endpoint: EndpointSpec,
    longest: int,
    opened: AsyncExitStack,
    most: int | None,
) -> tuple[Engine, ChatTokenizer]:
    """Start an endpoint's engine, for replies of up to `longest` tokens; each request has a temperature.

    It samples at most `most` replies at once.
    """
    settings = endpoint.vllm or endpoint.transformers
    assert settings is not None
    options, folder = storage_options(spec.storage), world.node_folder / f"model-{name}"
    files = fetch_files(settings.model, spec.hub, options, folder, hub_token(spec))
    tokenizer = ChatTokenizer.load(files.tokenizer, today=day)
    sampling = SamplingSpec(num_samples=1, temperature=1.0, top_p=1.0, max_new_tokens=longest)
    seed = (spec.seeds.shuffle_seed or 0) + world.attempt
    if endpoint.vllm is not None:
        from tunesmith.engines.vllm.engine import open_vllm

        vllm, seeds = endpoint.vllm, count(seed, 1 << 16)

        async def open_again(rows: int | None) -> Engine:
            own = next(seeds)
            return await open_vllm(files, settings.model, tokenizer, vllm, sampling, seed=own, rows=rows)

        told = progress.teller(f"endpoint {name}")

        def tell(error: TemporaryError | None, times: int) -> None:
            told(error)
            progress.update(engineRestarts=times)

        return RestartingEngine(await open_again(most), open_again, vllm.stuck_seconds, tell), tokenizer
    from tunesmith.engines.hf.engine import open_transformers

    assert endpoint.transformers is not None
    engine = open_transformers(
        files, settings.model, tokenizer, endpoint.transformers, sampling, seed=seed, rows=most
    )
    watching = asyncio.create_task(_end_when_stuck(name, engine, endpoint.transformers.stuck_seconds, world))
    opened.callback(watching.cancel)
    return engine, tokenizer


async def _end_when_stuck(name: str, engine: Engine, seconds: float, world: World) -> None:
    """Exit the program if an engine hangs in one of its own threads, which nothing else can end."""
    while engine.heartbeat.silent < seconds:
        await asyncio.sleep(_LOOK_SECONDS)
    end_now(
        world.termination_log,
        StuckError(
            f"Endpoint {name} generated no token and no reply for {seconds:g} s (stuckSeconds). What is done "
            "is kept; the next attempt samples the rest."
        ),
    )

"""Who plays the roles of a DialogueGenJob: servers that are asked, engines that are started in the pod."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import date

from tunesmith.api.dialogue import DialogueGenSpec, EndpointSpec, RoleSpec
from tunesmith.api.generation import SamplingSpec
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.endpoint import Endpoint
from tunesmith.dialogue.growth import ROLES, Role
from tunesmith.dialogue.speakers import EngineSpeaker, endpoint_speaker
from tunesmith.dialogue.turns import Speaker
from tunesmith.engines.files import fetch_files
from tunesmith.engines.sampler import Engine
from tunesmith.jobs.inputs import hub_token, storage_options
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.secrets import secret
from tunesmith.jobs.world import World
from tunesmith.tokens.chat import ChatTokenizer


async def open_speakers(
    spec: DialogueGenSpec,
    world: World,
    progress: Progress,
    day: date,
    budget: Budget | None,
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
            made[name] = endpoint_speaker(await opened.enter_async_context(server), endpoint, budget)
        else:
            progress.update(phase=f"starting endpoint {name}")
            longest = max(role.max_tokens for role in roles.values() if role.endpoint == name)
            engine, tokenizer = await _engine(spec, world, day, name, endpoint, longest)
            opened.push_async_callback(engine.close)
            made[name] = EngineSpeaker(engine, tokenizer, endpoint.limits.max_retries)
    return {role: made[each.endpoint] for role, each in roles.items()}


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

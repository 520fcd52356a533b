"""The transformers engine with models of two layers: everything real but the size."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.fixtures.adapters import make_adapter
from tests.fixtures.tokenizers import load_family

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import SamplingSpec, TransformersEngine
from tunesmith.engines.adapter import load_adapter
from tunesmith.engines.engine import Engine, GeneratedReply, GenerationRequest
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.hf import memory
from tunesmith.engines.hf.rows import GenerationRow, WaitingRows
from tunesmith.engines.reply_text import Endings
from tunesmith.errors import ModelError, PermanentError, StoppedError
from tunesmith.names import Reason


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global CHAT, torch, BatchedEngine, open_transformers, sizes_of, joined, prompt_cache
    global AutoModelForCausalLM, GenerationBatch, TokenSampler, GPT2Config, GPT2LMHeadModel, GenerationConfig
    global LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM, MistralConfig
    global MistralForCausalLM, MixtralConfig, MixtralForCausalLM, SamplingParams
    import torch
    from transformers import (
        AutoModelForCausalLM,
        GenerationConfig,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MambaConfig,
        MambaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        MixtralConfig,
        MixtralForCausalLM,
    )

    from tunesmith.engines.hf.batch import GenerationBatch, TokenSampler, joined, prompt_cache
    from tunesmith.engines.hf.engine import BatchedEngine, open_transformers, sizes_of
    from tunesmith.engines.hf.sample_tokens import SamplingParams

    CHAT = load_family("chatml")
    SMALL["vocab_size"] = len(CHAT.tokenizer)


SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
HEADS: dict[str, Any] = {
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
PROMPTS = [
    list(range(3, 23)),
    [5, 9, 3],
    [7, 7],
    [4, 30, 31, 2, 8, 12, 40, 50, 60, 11, 10],
    [3],
    list(range(80, 110)),
    [9, 8, 7, 6],
]


def llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SMALL, **HEADS))


def build(kind: str) -> Any:
    """A model with random weights, large enough that its replies differ from prompt to prompt."""
    torch.manual_seed(1)
    match kind:
        case "llama":
            model: Any = llama()
        case "positions":  # a table of positions: none beyond it
            model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=SMALL["vocab_size"],
                    n_positions=64,
                    n_embd=32,
                    n_layer=2,
                    n_head=4,
                    eos_token_id=None,
                    bos_token_id=None,
                )
            )
        case "window":
            model = MistralForCausalLM(MistralConfig(**SMALL, **HEADS, sliding_window=8))
        case "recurrent":
            model = MambaForCausalLM(MambaConfig(**SMALL, state_size=4))
        case _:
            model = MixtralForCausalLM(MixtralConfig(**SMALL, **HEADS, num_local_experts=4))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(6)
    return model.eval()


def opened(model: Any, batch_size: Any = "auto", *, seed: int = 0, **sampling: Any) -> BatchedEngine:
    """An engine over a model that is in memory. `sampling` is by the manifest's names."""
    spec = SamplingSpec(**{"maxNewTokens": 12, "temperature": 0.0, **sampling})
    model.generation_config = GenerationConfig()
    longest = memory.longest(model.config, CHAT.tokenizer)
    sizes = sizes_of(model, longest, TransformersEngine(batchSize=batch_size), spec)
    token_sampler = TokenSampler(model, SamplingParams.of(spec), Endings(CHAT, spec.stop_tokens), longest)
    return BatchedEngine(token_sampler, sizes, spec, seed)


def run(engine: Engine, use: Callable[[Engine], Awaitable[Any]]) -> Any:
    """What `use` returns; the engine is closed then."""

    async def all_of_it() -> Any:
        try:
            return await asyncio.wait_for(use(engine), 60)
        finally:
            await asyncio.wait_for(engine.close(), 60)

    return asyncio.run(all_of_it())


def replies(engine: Engine, requests: Iterable[GenerationRequest]) -> list[GeneratedReply]:
    async def use(engine: Engine) -> list[GeneratedReply]:
        return await asyncio.gather(*(engine.reply(request) for request in requests))

    found: list[GeneratedReply] = run(engine, use)
    return found


def requests_of(prompts: Sequence[Sequence[int]], samples: int = 1) -> list[GenerationRequest]:
    return [
        GenerationRequest(prompt, f"p{at}", index, None)
        for at, prompt in enumerate(prompts)
        for index in range(samples)
    ]


def greedy(model: Any, prompt: Sequence[int], limit: int) -> GeneratedReply:
    """What plain transformers says, alone and without a cache of ours; it is asked once."""
    said: dict[Any, GeneratedReply] = vars(model).setdefault("said", {})
    key = (tuple(prompt), limit)
    if key not in said:
        said[key] = _greedy(model, prompt, limit)
    return said[key]


def _greedy(model: Any, prompt: Sequence[int], limit: int) -> GeneratedReply:
    ids = torch.tensor([list(prompt)])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=sorted(CHAT.stop_ids),
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    endings = Endings(CHAT, [])
    stopped = output[-1] in CHAT.stop_ids
    text = endings.text(output[:-1] if stopped else output)
    return GeneratedReply(text, len(output), "stop" if stopped else "length")


# --- The likeliest tokens ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "positions", "window", "recurrent", "experts"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_likeliest_tokens_are_those_of_generate(kind: str, batch_size: int) -> None:
    model = build(kind)
    found = replies(opened(model, batch_size, maxNewTokens=12), requests_of(PROMPTS, 2))
    expected = [greedy(model, prompt, 12) for prompt in PROMPTS for _ in range(2)]
    assert found == expected
    assert len({reply.text for reply in expected}) > 3  # prompts matter to this model


def ending() -> tuple[Any, list[list[int]]]:
    """A model that ends its turn sooner or later, and prompts to which its replies differ in length."""
    model = build("llama")
    with torch.no_grad():
        model.lm_head.weight[sorted(CHAT.stop_ids)] *= 3
    prompts = [[at % 90 + 3, at * 7 % 90 + 3, at * 31 % 90 + 3, 5][: 2 + at % 3] for at in range(40)]
    return model, prompts


def test_an_end_of_turn_ends_a_reply_among_others_that_go_on() -> None:
    """Rows leave the batch at different times, and others take their places."""
    model, prompts = ending()
    expected = [greedy(model, prompt, 40) for prompt in prompts]
    assert len({reply.tokens for reply in expected}) > 5
    assert {reply.finish_reason for reply in expected} == {"stop", "length"}
    for batch_size in (5, 64):
        assert replies(opened(model, batch_size, maxNewTokens=40), requests_of(prompts)) == expected


@pytest.mark.parametrize("kind", ["llama", "positions", "window"])
def test_a_reply_ends_where_the_model_has_no_position(kind: str) -> None:
    model = build(kind)
    longest = model.config.max_position_embeddings
    prompts = [[5] * (longest - 1), [6] * (longest - 5), *([at, 8, at][: 2 + at % 2] for at in range(3, 10))]
    engine = opened(model, maxNewTokens=longest)
    assert engine.longest == longest
    found = replies(engine, requests_of(prompts))
    assert [reply.tokens for reply in found[:2]] == [1, 5]
    assert found == [greedy(model, prompt, longest - len(prompt)) for prompt in prompts]


def test_a_prompt_without_a_place_for_a_reply_is_refused() -> None:
    engine = opened(build("positions"))
    with pytest.raises(ValueError, match="64 tokens leaves no room"):
        replies(engine, requests_of([[5] * 64]))


# --- Drawing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_a_request_may_have_a_temperature_and_a_length_of_its_own(batch_size: int) -> None:
    model, prompts = build("llama"), PROMPTS[:3]
    requests = [
        GenerationRequest(prompt, f"p{at}", index, None, temperature, length)
        for at, prompt in enumerate(prompts)
        for index, (temperature, length) in enumerate([(0.0, 12), (None, 3), (0.0, None), (50.0, 7)])
    ]
    found = replies(opened(model, batch_size, temperature=1.0, maxNewTokens=12), requests)
    likeliest = [greedy(model, prompt, 12) for prompt in prompts]
    assert found[0::4] == found[2::4] == likeliest
    assert all(reply.tokens <= 3 for reply in found[1::4])
    assert [reply.tokens for reply in found[3::4]] == [7] * 3  # so hot that the end of a turn is unlikely
    assert all(hot.text[:5] != cold.text[:5] for hot, cold in zip(found[3::4], likeliest, strict=True))


def test_replies_are_as_likely_as_the_model_says() -> None:
    model = build("llama")
    prompt, count = [5, 9, 3], 600
    found = replies(
        opened(model, temperature=2.0, topP=0.7, topK=6, maxNewTokens=1),
        [GenerationRequest(prompt, f"p{at // 8}", at % 8, None) for at in range(count)],
    )
    scores = model(torch.tensor([prompt])).logits[0, -1].detach() / 2
    kept, ids = scores.topk(6)
    likely = kept.softmax(-1)
    inside = (likely.cumsum(-1) - likely) < 0.7
    likely = likely[inside] / likely[inside].sum()
    endings = Endings(CHAT, [])
    texts = ["" if id_ in CHAT.stop_ids else endings.text([id_]) for id_ in ids[inside].tolist()]
    seen = Counter(reply.text for reply in found)
    assert len(texts) >= 2
    assert set(seen) <= set(texts)  # nothing that top-p or top-k leave out
    for text, share in zip(texts, likely.tolist(), strict=True):
        spread = (share * (1 - share) / count) ** 0.5
        assert abs(seen[text] / count - share) < 5 * spread + 1e-9


def test_the_checkpoint_s_own_settings_do_not_matter(tmp_path: Path, tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = [greedy(model, prompt, 20) for prompt in PROMPTS]
    model.generation_config = GenerationConfig(
        repetition_penalty=5.0, do_sample=True, top_k=1, suppress_tokens=[7], min_new_tokens=15, num_beams=3
    )
    model.save_pretrained(tmp_path / "model")
    CHAT.tokenizer.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "generation_config.json").read_text().count("repetition_penalty") == 1
    engine = open_files(tmp_path / "model", maxNewTokens=20, temperature=0.0)
    assert replies(engine, requests_of(PROMPTS)) == expected


def test_the_seed_of_the_engine_decides() -> None:
    model = build("llama")
    requests = requests_of(PROMPTS[:1], 8)

    def texts(seed: int) -> list[str]:
        return [r.text for r in replies(opened(model, seed=seed, temperature=1.5), requests)]

    assert texts(1) == texts(1) != texts(2)
    assert len(set(texts(1))) > 4


def test_the_random_numbers_of_torch_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    engine = opened(build("llama"), temperature=1.0)  # building takes numbers, so the seed comes after
    torch.manual_seed(5)
    replies(engine, requests_of(PROMPTS, 2))
    assert torch.equal(torch.rand(3), expected)


def test_stop_texts() -> None:
    model = build("llama")
    plain = replies(opened(model), requests_of(PROMPTS))
    stop = next(pair for pair in re.findall(r"[a-z ]{2}", plain[0].text) if plain[0].text.index(pair))
    found = replies(opened(model, stopTokens=[stop]), requests_of(PROMPTS))
    for before, now in zip(plain, found, strict=True):
        if stop in before.text:
            assert now.text == before.text[: before.text.index(stop)]
            assert (now.finish_reason, now.tokens < before.tokens) == ("stop", True)
        else:
            assert now == before
    assert found[0].finish_reason == "stop"


def test_logits_that_are_no_numbers_are_an_error() -> None:
    model = build("llama")
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        replies(opened(model), requests_of(PROMPTS))


# --- Seeds of requests ------------------------------------------------------------------------------------


def exact_requests(
    samples: int = 6, prompts: Sequence[Sequence[int]] = tuple(PROMPTS[:4])
) -> list[GenerationRequest]:
    return [
        GenerationRequest(prompt, f"p{at}", index, 1000 * at + index)
        for at, prompt in enumerate(prompts)
        for index in range(samples)
    ]


def exact(
    model: Any, requests: Sequence[GenerationRequest], samples: int = 6, **more: Any
) -> dict[Any, GeneratedReply]:
    settings = {"temperature": 1.0, "numSamples": samples, "deterministic": True, **more}
    found = replies(opened(model, **settings), requests)
    return {(r.group, r.index): reply for r, reply in zip(requests, found, strict=True)}


@pytest.mark.parametrize("kind", ["llama", "window", "recurrent", "experts"])
def test_with_seeds_a_reply_depends_on_nothing_else(kind: str) -> None:
    model, requests = build(kind), exact_requests()
    expected = exact(model, requests)
    assert len({reply.text for reply in expected.values()}) > 12
    assert exact(model, requests[::-1]) == expected
    assert exact(model, requests, batch_size=2) == expected
    for part in (requests[3:4], requests[1::2], requests[5:8]):
        some = exact(model, part)
        assert some == {key: expected[key] for key in some}


def test_with_seeds_the_number_of_processors_does_not_matter() -> None:
    before = torch.get_num_threads()
    model, requests, found = build("llama"), exact_requests(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(exact(model, requests))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_one_thread_is_all_there_is_while_seeds_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build("llama"), set()
    plain = model.generate

    def spied(*arguments: Any, **options: Any) -> Any:
        seen.add(torch.get_num_threads())
        return plain(*arguments, **options)

    engine = opened(model, temperature=1.0, deterministic=True)
    monkeypatch.setattr(model, "generate", spied)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        replies(engine, exact_requests())
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


@pytest.mark.parametrize(
    ("kind", "samples", "rows"), [("llama", 6, {6}), ("llama", 20, {16}), ("experts", 6, {1})]
)
def test_with_seeds_batches_are_always_of_one_size(
    monkeypatch: pytest.MonkeyPatch, kind: str, samples: int, rows: set[int]
) -> None:
    model, seen = build(kind), []
    engine = opened(model, temperature=1.0, numSamples=samples, deterministic=True)
    plain = model.generate

    def spied(ids: Any, **options: Any) -> Any:
        if options["generation_config"].max_new_tokens > 1:  # not a prompt
            seen.append(ids.shape[0])
        return plain(ids, **options)

    monkeypatch.setattr(model, "generate", spied)
    asked = [request for request in exact_requests(samples) if request.index not in (0, 4)]
    replies(engine, asked)
    assert set(seen) == rows


def test_other_requests_do_not_disturb_those_with_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests = build("llama"), exact_requests()
    expected = exact(model, requests)
    mixed = [r for pair in zip(requests_of(PROMPTS[:4], 6), requests, strict=True) for r in pair]
    engine = opened(model, 4, temperature=1.0, numSamples=6)
    rows: list[int] = []
    plain = model.generate

    def spied(ids: Any, **options: Any) -> Any:
        rows.append(ids.shape[0])
        return plain(ids, **options)

    monkeypatch.setattr(model, "generate", spied)
    found = replies(engine, mixed)
    assert dict(zip(expected, found[1::2], strict=True)) == expected
    assert rows.count(6) == 4
    assert set(rows) <= {1, 2, 3, 4, 6}


# --- Batches ----------------------------------------------------------------------------------------------


def test_a_prompt_is_computed_once_for_all_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, rows = build("llama"), [], []
    engine = opened(model, 4, temperature=1.0)
    plain = model.generate

    def spied(ids: Any, **options: Any) -> Any:
        if options["generation_config"].max_new_tokens == 1:
            prompts.append(ids[0].tolist())
        else:
            rows.append(ids.shape[0])
        return plain(ids, **options)

    monkeypatch.setattr(model, "generate", spied)
    replies(engine, requests_of(PROMPTS[:2], 8))
    assert prompts == [prompt[:-1] for prompt in PROMPTS[:2]]
    assert max(rows) == 4  # never more than asked for, and the places are used


def test_requests_made_together_are_handed_over_together(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[int] = []
    plain = WaitingRows.add

    def spied(waiting: WaitingRows, rows: Sequence[GenerationRow]) -> bool:
        numbers.append(len(rows))
        return plain(waiting, rows)

    monkeypatch.setattr(WaitingRows, "add", spied)
    replies(opened(build("llama")), requests_of(PROMPTS[:3], 4))
    assert numbers == [12]


@pytest.mark.parametrize(("kind", "padding"), [("recurrent", 0.0), ("window", 1 - 16 / 25)])
def test_caches_that_stay_whole_are_of_prompts_of_like_length(
    monkeypatch: pytest.MonkeyPatch, kind: str, padding: float
) -> None:
    model, shares, rows = build(kind), [], []
    engine = opened(model)
    plain = model.generate

    def spied(ids: Any, **options: Any) -> Any:
        shares.append(1 - options["attention_mask"].float().mean(dim=1).min().item())
        rows.append(ids.shape[0])
        return plain(ids, **options)

    monkeypatch.setattr(model, "generate", spied)
    prompts = [[at + 3] * length for at, length in enumerate((20, 16, 20, 15, 40, 20, 25, 26))]
    assert replies(engine, requests_of(prompts)) == [greedy(model, prompt, 12) for prompt in prompts]
    assert max(shares) == pytest.approx(padding)
    assert max(rows[: -len(prompts)]) == (3 if kind == "recurrent" else 5)


def test_places_that_become_free_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of which each waits for its longest reply would take half as many steps again."""
    model, prompts = ending()
    tokens = [greedy(model, prompt, 40).tokens for prompt in prompts]
    waiting = sum(max(tokens[at : at + 5]) for at in range(0, len(tokens), 5))
    engine, steps, plain = opened(model, 5, maxNewTokens=40), Counter[str](), model.forward

    @wraps(plain)
    def spied(*arguments: Any, **options: Any) -> Any:
        steps["all"] += 1
        return plain(*arguments, **options)

    monkeypatch.setattr(model, "forward", spied)
    replies(engine, requests_of(prompts))
    computed = steps["all"] - sum(len(prompt) > 1 for prompt in prompts)
    assert computed < sum(tokens) / 5 * 1.15 + 20 < waiting


def test_a_request_joins_those_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    engine = opened(model, 16, maxNewTokens=100)
    steps = slowed(model, monkeypatch, 0.002)

    async def use(engine: Engine) -> list[GeneratedReply]:
        first = asyncio.ensure_future(engine.reply(GenerationRequest(PROMPTS[0], "a", 0, None)))
        await until(lambda: steps["all"] > 5)
        return [await engine.reply(GenerationRequest(PROMPTS[1], "b", 0, None)), await first]

    found = run(engine, use)
    taken = steps["all"]
    monkeypatch.undo()
    assert found == [greedy(model, PROMPTS[1], 100), greedy(model, PROMPTS[0], 100)]
    assert [reply.tokens for reply in found] == [100, 100]
    assert taken < 150


def test_padding_goes_with_the_rows_that_needed_it() -> None:
    model = build("llama")
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [4, 5, 6, 7]]
    rows = [GenerationRow(request, 4, Random(0), lambda result: None) for request in requests_of(prompts)]
    parts = [GenerationBatch.of([row], model.device, prompt_cache(model, row.request.prompt)) for row in rows]
    batch = joined(parts)
    assert batch.ids.tolist() == [[0, 0, 0, 5, 6, 7], [8, 9, 10, 11, 12, 13], [0, 0, 4, 5, 6, 7]]
    assert batch.mask.sum(dim=1).tolist() == [3, 6, 4]
    rows[1].ended = True
    batch.compact()
    assert batch.rows == [rows[0], rows[2]]
    assert batch.ids.tolist() == [[0, 5, 6, 7], [4, 5, 6, 7]]
    assert batch.mask.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert batch.cache is not None
    for kept, single in zip(batch.cache.layers, prompt_cache(model, prompts[2]).layers, strict=True):
        assert torch.equal(kept.keys[1:], single.keys)
        assert torch.equal(kept.values[1:], single.values)
    rows[0].ended = rows[2].ended = True
    batch.compact()
    assert (batch.rows, batch.cache) == ([], None)


@pytest.mark.parametrize(("kind", "of_token"), [("llama", 2 * 2 * 2 * 8 * 4), ("window", 2 * 2 * 32 * 4)])
def test_memory_bounds_the_rows(monkeypatch: pytest.MonkeyPatch, kind: str, of_token: int) -> None:
    model = build(kind)
    room = 3 * (20 * (1 if kind == "llama" else 1.25) + 40)
    monkeypatch.setattr(
        "tunesmith.engines.hf.engine.free_memory", lambda cuda: int(room * of_token / 0.7) + 1000
    )
    engine = opened(model, 64, maxNewTokens=40)
    rows: list[int] = []
    plain = model.generate

    def spied(ids: Any, **options: Any) -> Any:
        rows.append(ids.shape[0])
        return plain(ids, **options)

    monkeypatch.setattr(model, "generate", spied)
    prompts = [[at + 3] * 20 for at in range(7)]
    assert replies(engine, requests_of(prompts)) == [greedy(model, prompt, 40) for prompt in prompts]
    assert max(rows) == 3


def test_the_number_of_rows_follows_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    of_token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, size, bytes
    monkeypatch.setattr(
        "tunesmith.engines.hf.engine.free_memory", lambda cuda: int(128 * 5.5 * of_token / 0.7)
    )
    for size, expected in (("auto", 5), (7, 7)):
        engine = opened(model, size, maxNewTokens=1000)
        assert engine.at_once == expected
        run(engine, lambda engine: asyncio.sleep(0))
    engine = opened(model, 7, numSamples=5, deterministic=True)
    assert engine.at_once == 5
    run(engine, lambda engine: asyncio.sleep(0))


# --- Calling off, closing, failing ------------------------------------------------------------------------


def slowed(model: Any, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.02) -> Counter[str]:
    """Each step takes a while; counts steps."""
    steps = Counter[str]()
    plain = model.forward

    @wraps(plain)  # `generate` reads its parameters
    def slow(*arguments: Any, **options: Any) -> Any:
        steps["all"] += 1
        time.sleep(seconds)
        return plain(*arguments, **options)

    monkeypatch.setattr(model, "forward", slow)
    return steps


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("settings", [{}, {"deterministic": True}], ids=["free", "seeds"])
def test_cancelling_ends_a_running_row_and_drops_a_waiting_one(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    model = build("llama")
    engine = opened(model, 2, maxNewTokens=200, numSamples=2, **settings)
    steps = slowed(model, monkeypatch)
    seed = 1 if settings else None

    async def use(engine: Engine) -> None:
        running = [
            asyncio.ensure_future(engine.reply(GenerationRequest([5, 9], "a", i, seed))) for i in range(2)
        ]
        waiting = [
            asyncio.ensure_future(engine.reply(GenerationRequest([6, 9], "b", i, seed))) for i in range(2)
        ]
        await until(lambda: steps["all"] > 3)
        for task in (*running, *waiting):
            task.cancel()
        results = await asyncio.gather(*running, *waiting, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        before = steps["all"]
        assert (await engine.reply(GenerationRequest([7], "c", 0, seed))).tokens > 0
        assert steps["all"] <= before + 203

    run(engine, use)


def test_cancelling_one_sample_leaves_the_others() -> None:
    model = build("llama")

    async def use(engine: Engine) -> list[GeneratedReply]:
        tasks = [asyncio.ensure_future(engine.reply(request)) for request in requests_of(PROMPTS[:1], 3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return [await tasks[0], await tasks[2]]

    assert run(opened(model), use) == [greedy(model, PROMPTS[0], 12)] * 2


@pytest.mark.parametrize("kind", ["llama", "window"])
def test_closing_ends_soon_and_tells_who_waits(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    model = build(kind)
    engine = opened(model, 2, maxNewTokens=200)
    steps = slowed(model, monkeypatch)

    async def use(engine: Engine) -> list[Any]:
        tasks = [asyncio.ensure_future(engine.reply(request)) for request in requests_of(PROMPTS[:2], 3)]
        await until(lambda: steps["all"] > 3)
        before = steps["all"]
        await engine.close()
        assert steps["all"] <= before + 2
        results = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(StoppedError):
            await engine.reply(GenerationRequest([5, 6], "late", 0, None))
        return results

    results = run(engine, use)
    assert len(results) == 6
    assert all(isinstance(result, StoppedError) for result in results)


def test_an_error_goes_to_those_it_concerns_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    engine = opened(model, 64)
    plain = model.generate

    def broken(ids: Any, **options: Any) -> Any:
        if 77 in ids.flatten().tolist():
            raise ZeroDivisionError("broken")
        return plain(ids, **options)

    monkeypatch.setattr(model, "generate", broken)

    async def use(engine: Engine) -> None:
        bad = [GenerationRequest([5, 77, 6], "bad", index, None) for index in range(3)]
        results = await asyncio.gather(*(engine.reply(r) for r in bad), return_exceptions=True)
        assert [type(result) for result in results] == [ZeroDivisionError] * 3
        assert await engine.reply(GenerationRequest(PROMPTS[0], "good", 0, None)) == greedy(
            model, PROMPTS[0], 12
        )

    run(engine, use)


OUT = {
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory."),
    "cpu": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    "windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    "python": MemoryError,
}


def bounded(model: Any, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> list[int]:
    """`generate` runs out of memory with more than `most` rows, after a step; returns the rows of calls."""
    rows: list[int] = []
    plain = model.generate

    def generate(ids: Any, **options: Any) -> Any:
        rows.append(ids.shape[0])
        if ids.shape[0] > most:
            options["generation_config"].max_new_tokens = 2
            plain(ids, **options)
            raise error
        return plain(ids, **options)

    monkeypatch.setattr(model, "generate", generate)
    return rows


@pytest.mark.parametrize("error", OUT.values(), ids=OUT)
@pytest.mark.parametrize("kind", ["llama", "window"])
def test_less_memory_means_smaller_batches(
    monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], kind: str
) -> None:
    model = build(kind)
    engine = opened(model, 8)
    expected = [greedy(model, prompt, 12) for prompt in PROMPTS[:3] for _ in range(6)]
    rows = bounded(model, monkeypatch, 2, error())
    assert replies(engine, requests_of(PROMPTS[:3], 6)) == expected
    assert [number for number in rows if number > 2] == ([6, 3] if kind == "window" else [8, 4])


def test_no_memory_even_for_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    engine = opened(model, 4)
    rows = bounded(model, monkeypatch, 0, OUT["gpu"]())

    async def use(engine: Engine) -> list[Any]:
        return await asyncio.gather(
            *(engine.reply(request) for request in requests_of(PROMPTS[:2], 2)), return_exceptions=True
        )

    results = run(engine, use)
    assert len(rows) < 12
    for result in results:
        assert isinstance(result, PermanentError)
        assert result.reason == Reason.OUT_OF_MEMORY
        assert "sampling.maxNewTokens" in result.message


def test_with_seeds_a_smaller_batch_would_not_be_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    engine = opened(model, temperature=1.0, numSamples=6, deterministic=True)
    rows = bounded(model, monkeypatch, 4, OUT["gpu"]())
    with pytest.raises(PermanentError, match=r"sampling\.numSamples"):
        replies(engine, exact_requests(prompts=PROMPTS[:1]))
    assert rows == [1, 6]  # the prompt, and one attempt


# --- Opening ----------------------------------------------------------------------------------------------


def open_files(folder: Path, *adapters: Path, seed: int = 0, **sampling: Any) -> Engine:
    source = ModelSource(uri=f"file://{folder}")
    return open_transformers(
        ModelFiles(folder, adapters, source),
        source,
        CHAT,
        TransformersEngine(),
        SamplingSpec(**sampling),
        seed=seed,
    )


def test_opening_a_model(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    engine = open_files(tiny_model, maxNewTokens=12, temperature=0.0)
    assert (engine.longest, engine.at_once) == (512, 64)
    assert replies(engine, requests_of(PROMPTS)) == [greedy(model, prompt, 12) for prompt in PROMPTS]


@pytest.mark.parametrize(
    "targets", [["q_proj", "v_proj"], ["q_proj", "embed_tokens"]], ids=["layers", "tied-embedding"]
)
def test_adapters_one_upon_the_other(tmp_path: Path, tiny_model: Path, targets: list[str]) -> None:
    first = make_adapter(tiny_model, tmp_path / "1", 1, target_modules=targets)
    second = make_adapter(tiny_model, tmp_path / "2", 2, target_modules=["k_proj", "v_proj"])
    adapted = load_adapter(AutoModelForCausalLM.from_pretrained(tiny_model), first, "one")
    adapted = load_adapter(adapted, second, "two")
    adapted.base_model.set_adapter(["one", "two"])
    expected = [greedy(adapted.get_base_model(), prompt, 12) for prompt in PROMPTS]
    engine = open_files(tiny_model, first, second, maxNewTokens=12, temperature=0.0)
    assert replies(engine, requests_of(PROMPTS)) == expected
    plain = replies(open_files(tiny_model, maxNewTokens=12, temperature=0.0), requests_of(PROMPTS))
    assert plain != expected

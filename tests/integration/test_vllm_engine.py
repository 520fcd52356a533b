"""The vLLM engine with a model of two layers: its replies, and its end, wanted or not.

Starting one takes half a minute on two cores, so one engine, with two adapters on top of each other, serves
most tests; then it hangs, and the one that is opened in its place is killed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.adapters import make_adapter
from tests.fixtures.tokenizers import load_family

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import SamplingSpec, VllmEngine
from tunesmith.api.vllm_arguments import VllmArguments
from tunesmith.engines.engine import GeneratedReply, GenerationRequest
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.restarting import RestartingEngine
from tunesmith.engines.vllm.engine import VllmReplies, open_vllm
from tunesmith.engines.vllm.process import log_file
from tunesmith.errors import ModelError, StoppedError, TemporaryError
from tunesmith.names import Reason
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.whole import WholeCharacters

pytest.importorskip("vllm")
psutil = pytest.importorskip("psutil")
pytestmark = [pytest.mark.slow, pytest.mark.vllm]

PROMPTS = [list(range(start, start + 30)) for start in (5, 60, 200, 410)]
LONGEST = 256
SETTINGS = VllmEngine(
    max_model_len=LONGEST, extra=VllmArguments(kv_cache_memory_bytes=1 << 26, max_num_seqs=16)
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_model`, but with heads of a width that vLLM can compute on a CPU."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_family("chatml").tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, initializer_range=0.4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("vllm") / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two that share a module, with scales and ranks of their own."""
    folder = tmp_path_factory.mktemp("adapters")
    other = {"r": 3, "lora_alpha": 7, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]}
    return [make_adapter(model, folder / "one", 1), make_adapter(model, folder / "two", 2, **other)]


def files_of(model: Path, adapters: Sequence[Path] = ()) -> ModelFiles:
    return ModelFiles(model, tuple(adapters), ModelSource(uri=str(model)))


async def opened(files: ModelFiles, settings: VllmEngine = SETTINGS, **sampling: Any) -> VllmReplies:
    tokenizer = ChatTokenizer.load(files.tokenizer)
    spec = SamplingSpec(**{"temperature": 0.0, "max_new_tokens": 24, **sampling})
    return await open_vllm(files, files.source, tokenizer, settings, spec, seed=2**40 + 3)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for the whole module, since an engine belongs to one."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner, model: Path, adapters: list[Path]) -> Iterator[VllmReplies]:
    before = dict(os.environ)
    sampling = {"temperature": 1.0, "max_new_tokens": 64, "stop_tokens": ["e"]}
    engine = runner.run(opened(files_of(model, adapters), **sampling))
    assert dict(os.environ) == before
    yield engine
    runner.run(engine.close())


@pytest.fixture
def ask(runner: asyncio.Runner, engine: VllmReplies) -> Callable[..., list[GeneratedReply]]:
    def ask(*requests: GenerationRequest) -> list[GeneratedReply]:
        async def all_of_them() -> list[GeneratedReply]:
            return await asyncio.gather(*(engine.reply(request) for request in requests))

        return runner.run(all_of_them())

    return ask


def processes() -> dict[str, list[Any]]:
    """vLLM's processes that this one has started, by what they are."""
    found: dict[str, list[Any]] = {"EngineCore": [], "Worker": []}
    for process in psutil.Process().children(recursive=True):
        for name, those in found.items():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if name in " ".join(process.cmdline()):
                    those.append(process)
    return found


def seconds_until(condition: Callable[[], bool], limit: float = 30) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit
        time.sleep(0.02)
    return time.monotonic() - began


def gone(process: Any) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def greedy(model: Any, prompt: list[int], tokens: int, stop: Sequence[int]) -> list[int]:
    import torch

    options = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": list(stop), "pad_token_id": 0}
    return model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()


def spoken(tokenizer: ChatTokenizer, ids: list[int]) -> str:
    said = [id_ for id_ in ids if id_ not in tokenizer.stop_ids]
    plain = tokenizer.tokenizer
    return WholeCharacters(plain).text(said, lambda some: plain.decode(some, skip_special_tokens=True))


def load(model: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


@dataclass
class Hung:
    """The processes and the folder of one that hung, those opened in its place, what was told, replies."""

    stopped: list[Any]
    folder: Path
    opened: list[VllmReplies] = field(default_factory=list)
    told: list[tuple[Any, int]] = field(default_factory=list)
    replies: list[GeneratedReply] = field(default_factory=list)


# --- What is refused before anything is started -----------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_model_len": 4096}, "engine.vllm.maxModelLen 4096 exceeds the model's maximum"),
        ({"tensor_parallel_size": 4}, "engine.vllm.tensorParallelSize does not fit"),
        ({"extra": {"quantization": "nope"}}, "vLLM cannot run this model with these settings"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be(
    runner: asyncio.Runner, model: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        runner.run(opened(files_of(model), VllmEngine(**settings)))
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_every_argument_that_a_manifest_may_hold_is_one_of_vllms() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    assert sorted(VllmArguments.model_fields.keys() - known) == []


def test_a_rank_that_is_too_high(runner: asyncio.Runner, model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path / "wide", r=600)
    with pytest.raises(ModelError, match="has rank 600; vLLM allows 512 at most"):
        runner.run(opened(files_of(model, [adapter])))


# --- One engine -------------------------------------------------------------------------------------------


def test_what_the_loop_is_told(engine: VllmReplies) -> None:
    assert (engine.at_once, engine.longest) == (16, LONGEST)


def test_replies_are_drawn_anew_and_with_a_seed_again(ask: Callable[..., list[GeneratedReply]]) -> None:
    free = ask(*(GenerationRequest(PROMPTS[0], "a", index, None) for index in range(12)))
    assert len({reply.text for reply in free}) > 3
    seeded = [
        ask(*(GenerationRequest(PROMPTS[0], "a", index, 2**63 - 1 - index % 2) for index in range(4)))
        for _ in range(2)
    ]
    assert seeded[0] == seeded[1]
    assert seeded[0][0] == seeded[0][2] != seeded[0][1]


def test_a_request_may_have_a_temperature_and_a_length_of_its_own(
    ask: Callable[..., list[GeneratedReply]],
) -> None:
    cold = ask(*(GenerationRequest(PROMPTS[0], "a", index, None, 0.0, 5) for index in range(6)))
    assert len({reply.text for reply in cold}) == 1
    assert max(reply.tokens for reply in cold) <= 5
    assert (
        len({reply.text for reply in ask(*(GenerationRequest(PROMPTS[0], "b", n, None) for n in range(12)))})
        > 3
    )


def test_a_stop_text_is_not_in_the_reply(ask: Callable[..., list[GeneratedReply]]) -> None:
    replies = ask(*(GenerationRequest(PROMPTS[1], "a", index, None) for index in range(40)))
    stopped = [reply for reply in replies if reply.finish_reason == "stop"]
    assert stopped
    assert max(len(reply.text) for reply in stopped) > 1
    assert all("e" not in reply.text for reply in replies)


def test_a_reply_ends_where_the_model_does(ask: Callable[..., list[GeneratedReply]]) -> None:
    prompt = (PROMPTS[0] * 9)[: LONGEST - 3]
    replies = ask(*(GenerationRequest(prompt, "long", index, None) for index in range(8)))
    assert max(reply.tokens for reply in replies) == 3
    assert "length" in {reply.finish_reason for reply in replies}


def test_a_token_that_the_model_has_not(ask: Callable[..., list[GeneratedReply]]) -> None:
    with pytest.raises(ModelError, match="vLLM rejects the prompt odd: "):
        ask(GenerationRequest([5, 10**6], "odd", 0, None))


def test_a_cancelled_request_is_aborted(runner: asyncio.Runner, engine: VllmReplies) -> None:
    async def cancel() -> tuple[int, int]:
        tasks = [
            asyncio.create_task(engine.reply(GenerationRequest(PROMPTS[2], "c", n, None))) for n in range(40)
        ]
        while engine._client.get_num_unfinished_requests() < 40:
            await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks[1:])
        left = engine._client.get_num_unfinished_requests()
        return left, (await tasks[0]).tokens

    left, tokens = runner.run(cancel())
    assert left <= 1
    assert tokens > 0


def test_replies_are_those_of_transformers(
    runner: asyncio.Runner, engine: VllmReplies, model: Path, adapters: list[Path]
) -> None:
    """Greedy, with two adapters on top of each other, through the same processes."""
    from peft import PeftModel

    tokenizer = ChatTokenizer.load(model)
    adapted = PeftModel.from_pretrained(load(model), adapters[0], adapter_name="one")
    adapted.load_adapter(adapters[1], "two")
    adapted.base_model.set_adapter(["one", "two"])
    wanted = [greedy(adapted, prompt, 24, tokenizer.stop_ids) for prompt in PROMPTS]
    plain = load(model)
    assert wanted != [greedy(plain, prompt, 24, tokenizer.stop_ids) for prompt in PROMPTS]

    async def draw() -> list[GeneratedReply]:
        return await asyncio.gather(*(likeliest.reply(GenerationRequest(p, "a", 0, None)) for p in PROMPTS))

    spec = SamplingSpec(temperature=0.0, max_new_tokens=24)
    likeliest = VllmReplies(engine._started, tokenizer, spec, engine._thread, engine._folder)
    replies = runner.run(draw())
    assert [reply.tokens for reply in replies] == [len(ids) for ids in wanted]
    assert [reply.text for reply in replies] == [spoken(tokenizer, ids) for ids in wanted]


def test_an_adapter_that_vllm_cannot_put_on(
    runner: asyncio.Runner, engine: VllmReplies, model: Path, tmp_path: Path
) -> None:
    from vllm.lora.request import LoRARequest

    adapter = make_adapter(model, tmp_path / "odd")
    rename(adapter, "q_proj", "r_proj")
    started = dataclasses.replace(engine._started, adapter=LoRARequest("odd", 2, str(adapter)))
    spec = SamplingSpec(temperature=0.0, max_new_tokens=24)
    odd = VllmReplies(started, ChatTokenizer.load(model), spec, engine._thread, engine._folder)
    with pytest.raises(ModelError, match=r"vLLM cannot use the adapter: .*r_proj"):
        runner.run(odd.load_adapter())
    log_file(engine._folder.path).write_text("")  # which says why it died when it dies later


def rename(adapter: Path, old: str, new: str) -> None:
    from safetensors.torch import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    save_file({name.replace(old, new): tensor for name, tensor in load_file(path).items()}, path)


@pytest.fixture(scope="module")
def hung(runner: asyncio.Runner, engine: VllmReplies, model: Path) -> Iterator[Hung]:
    """The engine's process is stopped, so that nothing comes and nothing dies, and it is asked on."""
    found = Hung(processes()["EngineCore"], Path(engine._folder.path))

    async def ask() -> None:
        async def open_one(rows: int | None = None) -> VllmReplies:
            found.opened.append(await opened(files_of(model), max_new_tokens=24))
            return found.opened[-1]

        def request(index: int) -> GenerationRequest:
            return GenerationRequest(PROMPTS[0], "b", index, None, 0.0, 24)

        again = RestartingEngine(
            engine, open_one, 3.0, lambda error, times: found.told.append((error, times))
        )
        for process in found.stopped:
            process.suspend()
        found.replies += await asyncio.gather(*(again.reply(request(n)) for n in range(3)))

    runner.run(ask())
    yield found
    for engine in found.opened:
        runner.run(engine.close())


def test_one_that_hangs_is_opened_again(hung: Hung) -> None:
    """All replies come all the same, and nothing is left of the one that hung."""
    assert len({reply.text for reply in hung.replies}) == 1
    assert [(error and error.reason, times) for error, times in hung.told] == [(Reason.STUCK, 1), (None, 1)]
    assert hung.stopped
    assert all(gone(process) for process in hung.stopped)
    assert not hung.folder.exists()
    assert len(hung.opened) == 1


def test_a_killed_process_ends_every_request(runner: asyncio.Runner, hung: Hung) -> None:
    """Promptly and with a reason; and nothing is left of it once it is closed."""
    (engine,) = hung.opened
    folder = Path(engine._folder.path)
    assert folder.exists()

    async def kill() -> list[Any]:
        tasks = [
            asyncio.create_task(engine.reply(GenerationRequest(PROMPTS[3], "d", n, None))) for n in range(40)
        ]
        while engine._client.get_num_unfinished_requests() < 40:
            await asyncio.sleep(0)
        running["EngineCore"][0].kill()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    running = processes()
    assert [len(those) for those in running.values()] == [1, 1]
    errors = [each for each in runner.run(kill()) if not isinstance(each, GeneratedReply)]
    assert errors
    assert {type(error) for error in errors} == {TemporaryError}
    assert {error.reason for error in errors} == {Reason.PROCESS_DIED}
    assert "vLLM's process has died; it was killed from outside" in errors[0].message
    with pytest.raises(TemporaryError, match="has died"):
        runner.run(engine.reply(GenerationRequest(PROMPTS[0], "e", 0, None)))
    runner.run(engine.close())
    assert all(gone(process) for those in running.values() for process in those)
    assert not folder.exists()
    with pytest.raises(StoppedError):
        runner.run(engine.reply(GenerationRequest(PROMPTS[0], "e", 0, None)))


# --- Engines of their own ---------------------------------------------------------------------------------

# What a pod's program has of its launcher, which is nothing to vLLM.
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
SCRIPT = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_vllm_engine import PROMPTS, files_of, opened
from tunesmith.engines.engine import GenerationRequest

async def main():
    engine = await opened(files_of(Path(sys.argv[1])))
    for prompt in PROMPTS:
        reply = await engine.reply(GenerationRequest(prompt, "a", 0, None))
        print(reply.tokens, reply.text.encode().hex(), flush=True)
    print("ready", flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def short_path() -> Iterator[str]:
    """For temporary files; paths of sockets may not be as long as those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def test_nothing_is_left_of_a_killed_program(model: Path, tmp_path: Path, short_path: str) -> None:
    """The base model in a program of its own: what it replies, and what becomes of vLLM when it is killed."""
    path = tmp_path / "program.py"
    path.write_text(SCRIPT)
    environment = {
        **os.environ, **TORCHRUN, "TMPDIR": short_path,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    program = subprocess.Popen([sys.executable, path, model], env=environment, text=True, **pipes)
    assert program.stdout is not None
    try:
        lines = [program.stdout.readline().split() for _ in range(5)]
        children = psutil.Process(program.pid).children(recursive=True)
        children = [each for each in children if "resource_tracker" not in " ".join(each.cmdline())]
        assert len(children) >= 2
    finally:
        program.send_signal(signal.SIGKILL)
        said = program.communicate(timeout=60)[1]
    assert lines[-1] == ["ready"], said
    tokenizer, plain = ChatTokenizer.load(model), load(model)
    wanted = [greedy(plain, prompt, 24, tokenizer.stop_ids) for prompt in PROMPTS]
    assert [int(tokens) for tokens, *_ in lines[:4]] == [len(ids) for ids in wanted]
    assert bytes.fromhex(lines[0][1]).decode() == spoken(tokenizer, wanted[0])
    assert seconds_until(lambda: all(gone(each) for each in children)) < 15
    assert "vllm" not in said.lower()
    assert seconds_until(lambda: not [*Path(short_path).iterdir()]) < 15


def test_tokens_are_noticed_where_vllm_takes_them_in() -> None:
    """Seen with vLLM 0.32: `AsyncLLM` hands every batch of tokens to this method of this attribute."""
    import vllm
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import OutputProcessor

    assert vllm.__version__.startswith("0.32.")
    assert list(inspect.signature(OutputProcessor.process_outputs).parameters)[1] == "engine_core_outputs"
    assert "output_processor.process_outputs(" in inspect.getsource(AsyncLLM._run_output_handler)


def test_too_little_memory(runner: asyncio.Runner, model: Path) -> None:
    settings = VllmEngine(max_model_len=512, extra={"kv_cache_memory_bytes": 1 << 17})
    with pytest.raises(ModelError) as caught:
        runner.run(opened(files_of(model), settings))
    assert caught.value.reason == Reason.OUT_OF_MEMORY
    assert "One reply of up to 512 tokens" in caught.value.message
    assert "set engine.vllm.maxModelLen to at most 128" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.soak
def test_nothing_is_left_where_an_adapter_is_refused(
    runner: asyncio.Runner, model: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(model, tmp_path / "odd")
    rename(adapter, "q_proj", "r_proj")
    with pytest.raises(ModelError, match="vLLM cannot use the adapter"):
        runner.run(opened(files_of(model, [adapter])))
    assert not any(processes().values())


@pytest.mark.parametrize("early", [True, False], ids=["before-there-is-a-process", "while-it-loads"])
def test_a_start_that_is_called_off(runner: asyncio.Runner, model: Path, early: bool) -> None:
    async def call_off() -> float:
        task = asyncio.create_task(opened(files_of(model)))
        await asyncio.sleep(0.1)
        while not early and not processes()["EngineCore"]:
            await asyncio.sleep(0.05)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert runner.run(call_off()) < 15
    assert not any(processes().values())

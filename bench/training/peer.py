"""TRL's side: SFTTrainer on the same token ids and labels, in the ways it has."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from common import LORA, RATE, LossLog, report
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from workload import STEP

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

# name: rows a micro-batch (packed rows for packing), settings.
WAYS: dict[str, tuple[int, dict]] = {
    "padded": (4, {"train_sampling_strategy": "sequential"}),
    "by length": (4, {"train_sampling_strategy": "group_by_length"}),
    "padding-free": (4, {"train_sampling_strategy": "sequential", "padding_free": True}),
    "packed": (1, {"packing": True, "packing_strategy": "bfd", "max_length": 2048}),
    "liger": (4, {"train_sampling_strategy": "group_by_length", "use_liger_kernel": True}),
    "flash": (8, {"train_sampling_strategy": "sequential", "padding_free": True}),
    "liger and flash": (
        8, {"train_sampling_strategy": "sequential", "padding_free": True, "use_liger_kernel": True}
    ),
}  # fmt: skip


def main(model: str, data: str, way: str, dtype: str = "float32") -> None:
    """Prints one JSON line."""
    from trl import SFTConfig, SFTTrainer

    samples = json.loads(Path(data).read_text())
    rows = [
        {
            "input_ids": s["ids"],
            "labels": [i if on else -100 for i, on in zip(s["ids"], s["labels"], strict=True)],
        }
        for s in samples
    ]
    size, settings = WAYS[way]
    each = STEP // size
    if way == "packed":  # as many samples in a step, as nearly as rows allow
        each = max(1, round(STEP * sum(len(s["ids"]) for s in samples) / len(samples) / 2048))
    losses: list[float] = []

    class Noting(SFTTrainer):
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            losses.append(float(loss))
            return loss

    trainer = Noting(
        model=AutoModelForCausalLM.from_pretrained(
            model,
            dtype=getattr(torch, dtype),
            attn_implementation="flash_attention_2" if "flash" in way else "sdpa",
        ),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=size,
            gradient_accumulation_steps=each, learning_rate=RATE, lr_scheduler_type="constant",
            weight_decay=0.0, optim="adamw_torch_fused",
            use_cpu=not torch.cuda.is_available(), bf16=dtype == "bfloat16",
            gradient_checkpointing=False, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, dataloader_pin_memory=False, **({"max_length": None} | settings),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            r=LORA["r"], lora_alpha=LORA["alpha"], lora_dropout=LORA["dropout"],
            target_modules="all-linear", task_type="CAUSAL_LM",
        ),
    )  # fmt: skip
    log = LossLog(lambda: sum(losses[-each:]))
    trainer.add_callback(log)
    trainer.train()
    report(f"trl {way}", samples, log, trainer.model)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""TRL's side of `bench.py`: MODEL ROWS FOLDER. The script that its documentation opens with, with LoRA."""

import sys

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

model, rows, folder = sys.argv[1:]
trainer = SFTTrainer(
    model=model,
    train_dataset=load_dataset("json", data_files=rows, split="train"),
    args=SFTConfig(
        output_dir=folder,
        max_steps=1,
        per_device_train_batch_size=8,
        learning_rate=2e-3,
        weight_decay=0.0,
        max_length=512,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="tensorboard",
        save_strategy="no",
    ),
    peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"),
)
trainer.train()

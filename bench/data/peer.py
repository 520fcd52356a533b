"""Hugging Face datasets' side of `bench.py`: MODE FILE MODEL.

`ids`: batched `map` in as many processes as there are processors, template and tokenizer on whole batches,
token ids only. `labels`: also which tokens are the assistant's, by transformers' own assistant mask.
`samples`: users' dialogues expanded into one sample a turn, token ids only.
"""

import json
import os
import sys
import tempfile

from datasets import load_dataset
from transformers import AutoTokenizer

GENERATION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
)


def encode(texts, tokenizer):
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]


def ids(batch, tokenizer):
    return {"input_ids": encode(tokenizer.apply_chat_template(batch["messages"], tokenize=False), tokenizer)}


def labels(batch, tokenizer):
    made = tokenizer.apply_chat_template(
        batch["messages"],
        chat_template=GENERATION,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return {"input_ids": made["input_ids"], "assistant_masks": made["assistant_masks"]}


def samples(batch, tokenizer):
    conversations = []
    for user, task in zip(batch["user"], batch["task"], strict=True):
        lines = "\n".join(f"{name}: {value}" for name, value in user["profile"].items())
        system = {"role": "system", "content": f"[Profile]\n{lines}\n\n[Task]\n{task['description']}"}
        for item in task["task_behavior_collections"][0]["data"]:
            said = [*item["context"], {"source": "user", "content": item["continuation"]}]
            turns = [
                {"role": "assistant" if turn["source"] == "user" else "user", "content": turn["content"]}
                for turn in said
            ]
            conversations += [[system, *turns[: at + 1]] for at in range(1, len(turns), 2)]
    return {"input_ids": encode(tokenizer.apply_chat_template(conversations, tokenize=False), tokenizer)}


def main() -> None:
    mode, path, model = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as cache:
        data = load_dataset("json", data_files=path, split="train", cache_dir=cache)
        made = data.map(
            {"ids": ids, "labels": labels, "samples": samples}[mode],
            batched=True,
            batch_size=1000 if mode != "samples" else 100,
            num_proc=len(os.sched_getaffinity(0)),
            fn_kwargs={"tokenizer": tokenizer},
            remove_columns=data.column_names,
        )
        import pyarrow.compute as pc

        tokens = sum(
            pc.sum(pc.list_value_length(part)).as_py() for part in made.data.column("input_ids").chunks
        )
        print(json.dumps({"samples": len(made), "tokens": tokens}))


if __name__ == "__main__":
    main()

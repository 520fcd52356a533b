"""GGUF files that llama.cpp computes exactly as transformers does, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from tests.cases import each
from tests.fixtures.tokenizers import BY_NAME as TOKENIZERS
from tests.fixtures.tokenizers import build_backend, load_family

from tunesmith.api.common import ModelSource
from tunesmith.api.export import GgufExport
from tunesmith.engines.files import ModelFiles
from tunesmith.errors import ModelError
from tunesmith.export.gguf.families import architecture, context_length
from tunesmith.export.gguf.quantiser import MIXTURES, quantise, type_name
from tunesmith.export.gguf.vocabulary import check_vocabulary, learned_ends
from tunesmith.export.proof import ProofPrompt, compare, gguf_tokens, tuned_replies
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Message

pytestmark = pytest.mark.engine
SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 32,
}  # fmt: skip
ROPES = {
    "llama3": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
}  # fmt: skip
FAMILIES = {
    "llama": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "llama-bias": ("LlamaForCausalLM", {"attention_bias": True}),
    "llama3-positions": ("LlamaForCausalLM", {"rope_parameters": ROPES["llama3"]}),
    "linear-positions": ("LlamaForCausalLM", {"rope_parameters": ROPES["linear"]}),
    "mistral": ("MistralForCausalLM", {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", {"head_dim": 16}),
    "qwen3": ("Qwen3ForCausalLM", {"tie_word_embeddings": True}),
    "qwen3-experts": (
        "Qwen3MoeForCausalLM",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, np, transformers, convert
    pytest.importorskip("xllamacpp")
    import numpy as np
    import torch
    import transformers

    from tunesmith.export.gguf.convert import convert


def make(folder: Path, name: str, tokenizer: str = "chatml") -> Path:
    """A random model of a family, whose weights are large enough that its tokens are no coin's toss."""
    shutil.rmtree(folder, ignore_errors=True)
    class_name, more = FAMILIES[name]
    family = getattr(transformers, class_name)
    backend = load_family(tokenizer).tokenizer
    torch.manual_seed(3)
    model = family(family.config_class(**SIZES | {"vocab_size": len(backend) + 5} | more))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6 if weight.dim() > 1 else 1)
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    backend.save_pretrained(folder)
    return folder


def proved(folder: Path, path: Path):
    """What llama.cpp says of a file, beside the model's own replies."""
    chat = load_family("chatml")
    prompts = [
        ProofPrompt(chat.tokenizer.decode(ids), tuple(ids), 12, (Message("user", text).as_dict(),))
        for text in ("What is river number 1234?", "今天天气很好， it's 5\n\n\tok")
        for ids in [chat.prompt_ids([Message("user", text)])]
    ]
    files = ModelFiles(folder, (), ModelSource(uri=folder.as_uri()))
    replies = tuned_replies(files, files.source, prompts, chat.today)
    found = gguf_tokens(path, replies, ends_of(folder))
    return compare(replies, found.next_tokens, "float32"), found


def ends_of(folder: Path) -> tuple[int, ...]:
    return learned_ends(ChatTokenizer.load(folder))


@each("name", list(FAMILIES))
def test_llama_cpp_writes_what_transformers_writes(tmp_path, name):
    folder = make(tmp_path / "m", name)
    path = tmp_path / "m.gguf"
    convert(folder, path, "F32", name)
    agreement, found = proved(folder, path)
    assert agreement.tokens > 10
    assert agreement.same, (name, agreement)
    assert (found.tokenised, found.rendered, found.stops) == (True, True, True), name


def test_quantised_files_are_smaller_and_near(tmp_path):
    folder = make(tmp_path / "m", "llama")
    sizes, shares = {}, {}
    for name in ("F32", "BF16", "Q8_0", "Q4_K_M"):
        path = tmp_path / f"{name}.gguf"
        convert(folder, path, name, "m")
        sizes[name], shares[name] = path.stat().st_size, proved(folder, path)[0].share
    assert sizes["F32"] > sizes["BF16"] > sizes["Q8_0"] > sizes["Q4_K_M"]
    assert shares["F32"] == 1.0
    assert shares["Q8_0"] > 0.7, shares


@each("type_", ["Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q5_0", "Q8_0"])
def test_rows_are_quantised_as_gguf_reads_them(type_):
    from gguf import GGMLQuantizationType, quants

    rows = np.random.default_rng(0).standard_normal((3, 2, 512)).astype(np.float32)
    made = quantise(rows, type_)
    back = quants.dequantize(made, GGMLQuantizationType[type_])
    bits = int(type_[1])
    assert back.shape == rows.shape
    assert np.abs(back - rows).max() < 4.5 / 2 ** (bits - 1), type_


@each(
    ("name", "width", "expected"),
    [
        ("blk.0.attn_q.weight", 512, "Q4_K"),
        ("blk.0.attn_v.weight", 512, "Q6_K"),
        ("blk.4.attn_v.weight", 512, "Q4_K"),
        ("blk.6.ffn_down.weight", 512, "Q6_K"),
        ("blk.30.ffn_down.weight", 512, "Q6_K"),
        ("blk.4.ffn_down.weight", 576, "Q5_0"),
        ("blk.6.ffn_down.weight", 576, "Q8_0"),
        ("blk.4.ffn_down.weight", 40, "F16"),
        ("output.weight", 512, "Q6_K"),
        ("token_embd.weight", 512, "Q4_K"),
    ],
)
def test_a_mixture_gives_more_bits_where_errors_hurt(name, width, expected):
    assert type_name("Q4_K_M", name, width, 32, tied=False) == expected


def test_an_embedding_that_is_the_output_layer_too_is_stored_as_that():
    assert type_name("Q4_K_M", "token_embd.weight", 512, 32, tied=True) == "Q6_K"


def test_a_manifest_offers_every_mixture():
    offered = GgufExport.model_json_schema()["properties"]["quantization"]["enum"]
    assert sorted(offered) == sorted(MIXTURES)


@each(
    ("changes", "words"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "cannot convert a GemmaForCausalLM; it converts Llama"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "type dynamic",
        ),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path, changes, words):
    folder = make(tmp_path / "m", "llama")
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=words):
        convert(folder, tmp_path / "m.gguf", "Q8_0", "m")


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}


@each(
    ("more", "words"),
    [
        ({}, ""),
        ({"beta_fast": 32.0, "attention_factor": 0.1 * math.log(4.0) + 1.0}, ""),
        ({"beta_fast": 16.0}, "beta_fast of rope_type yarn is 16.0"),
        ({"attention_factor": 1.0}, "attention_factor of rope_type yarn is 1.0"),
        ({"mscale": 0.7}, "rope_type yarn has mscale"),
        ({"truncate": False}, "truncate of rope_type yarn is False"),
    ],
)
def test_positions_that_gguf_cannot_describe_are_refused(tmp_path, more, words):
    folder = make(tmp_path / "m", "llama")
    config = json.loads((folder / "config.json").read_text()) | {"rope_parameters": YARN | more}
    (folder / "config.json").write_text(json.dumps(config))
    if not words:
        architecture(folder)
        return
    with pytest.raises(ModelError, match=words):
        architecture(folder)


def test_a_context_is_no_longer_than_one_sliding_window():
    class Config:
        max_position_embeddings, sliding_window = 32768, 4096

    assert context_length(Config) == 4096
    Config.sliding_window = None
    assert context_length(Config) == 32768


def test_more_tokens_than_embeddings_are_refused_before_anything_is_computed(tmp_path):
    folder = make(tmp_path / "m", "llama")
    check_vocabulary(folder, ChatTokenizer.load(folder).vocab_size)
    with pytest.raises(ModelError, match="and the model embeddings for 100"):
        check_vocabulary(folder, 100)


def test_a_file_in_which_replies_do_not_end_is_not_the_model(tmp_path, monkeypatch):
    """The model's end of turn has a name that llama.cpp does not know, and the file does not say it."""
    from tunesmith.export.gguf import vocabulary

    folder = make(tmp_path / "m", "llama")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        text = (folder / name).read_text().replace("<|im_end|>", "<|over|>")
        (folder / name).write_text(text.replace('"eos_token": "<|over|>"', '"eos_token": "<|endoftext|>"'))
    convert(folder, tmp_path / "m.gguf", "F32", "m")
    assert proved(folder, tmp_path / "m.gguf")[1].stops
    eos = ChatTokenizer.load(folder).tokenizer.eos_token_id
    assert ends_of(folder) != (eos,)
    monkeypatch.setattr(vocabulary.ChatTokenizer, "stop_ids", frozenset({eos}))
    convert(folder, tmp_path / "m.gguf", "F32", "m")
    monkeypatch.undo()
    assert not proved(folder, tmp_path / "m.gguf")[1].stops


@each(("family", "words"), [("metaspace-first", "is sentencepiece's"), ("llama3", "way of splitting")])
def test_tokenizers_that_it_does_not_know_are_refused(tmp_path, family, words):
    folder = make(tmp_path / "m", "llama")
    build_backend(TOKENIZERS[family]).save_pretrained(folder)
    with pytest.raises(ModelError, match=words):
        convert(folder, tmp_path / "m.gguf", "Q8_0", "m")


def test_a_file_with_other_weights_is_not_the_model(tmp_path, monkeypatch):
    """The proof fails where the conversion does: llama.cpp loads the file, and writes something else."""
    from datetime import date

    from tunesmith.export import forms
    from tunesmith.export.gguf import convert as converting

    monkeypatch.setattr(
        converting, "quantise", lambda rows, type_: quantise(np.ascontiguousarray(rows[..., ::-1]), type_)
    )
    folder = make(tmp_path / "m", "llama")
    source = ModelSource(uri=folder.as_uri())
    subject = forms.Subject(ModelFiles(folder, (), source), source, "m", date.today())
    with forms.Forms(subject, tmp_path / "out", [], lambda phase: None, lambda: None) as made:
        form = made.gguf("F32")
    assert "tokens are those of the tuned model, fewer than 80%" in form.failure

"""Where replies of a published model end: in every file that transformers and vLLM read."""

import json

import pytest
from tests.fixtures.base_model import LEARNED, OWN, base_tokenizer, exported, make_base_model

ASKED = [{"role": "user", "content": "What is it?"}]
PLAIN_GENERATE = {"max_new_tokens": 8, "do_sample": False}


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PeftModel
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def ids():
    tokenizer = base_tokenizer()
    return [tokenizer.convert_tokens_to_ids(token) for token in (LEARNED, OWN)]


def read(path):
    return json.loads(path.read_text("utf-8"))


def reply(model, folder, **options):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_tensors="pt")[
        "input_ids"
    ]
    made = model.generate(prompt, **PLAIN_GENERATE, **options)[0, prompt.shape[1] :]
    return tokenizer.decode(made)


def test_a_base_model_does_not_stop(base):
    assert reply(AutoModelForCausalLM.from_pretrained(base), base) == LEARNED * 8


def test_a_whole_model_stops_with_plain_generate(base, tmp_path, ids):
    folder = exported(base, tmp_path / "final", "full")
    assert reply(AutoModelForCausalLM.from_pretrained(folder), folder) == LEARNED
    assert read(folder / "generation_config.json")["eos_token_id"] == ids
    assert read(folder / "config.json")["eos_token_id"] == ids
    assert AutoTokenizer.from_pretrained(folder).eos_token == LEARNED
    (folder / "generation_config.json").unlink()  # config.json is what is left then
    assert reply(AutoModelForCausalLM.from_pretrained(folder), folder) == LEARNED


def test_an_adapter_has_a_generation_configuration_of_its_own(base, tmp_path, ids):
    folder = exported(base, tmp_path / "final", "lora")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    config = GenerationConfig.from_pretrained(folder)
    assert config.eos_token_id == ids
    assert reply(model, folder, generation_config=config) == LEARNED
    assert AutoTokenizer.from_pretrained(folder).eos_token == LEARNED


def test_the_models_own_are_kept_whatever_file_names_them(tmp_path, ids):
    for number, (name, own) in enumerate(
        (("generation_config.json", [ids[1], 7, 9, 10**6]), ("config.json", 9))
    ):
        base = make_base_model(tmp_path / f"{number}")
        if name == "config.json":
            (base / "generation_config.json").unlink()
        (base / name).write_text(json.dumps(read(base / name) | {"eos_token_id": own}))
        folder = exported(base, tmp_path / f"{number}-final", "lora")
        wanted = [*ids, 7, 9] if isinstance(own, list) else [*ids, own]  # there is no token 10**6
        assert read(folder / "generation_config.json")["eos_token_id"] == wanted, name


def test_the_tokenizer_is_the_one_of_training(base, tmp_path):
    """What is read again renders, cuts and stops as what trained; the old EOS still ends a reply."""
    from tunesmith.tokens.chat import ChatTokenizer
    from tunesmith.tokens.conversation import Message

    folder = exported(base, tmp_path / "final", "lora")
    before, after = ChatTokenizer.load(base), ChatTokenizer.load(folder)
    messages = [Message("system", "Be brief."), Message("user", "What is it?")]
    assert after.prompt_ids(messages) == before.prompt_ids(messages)
    assert after.shape == before.shape
    assert after.stop_ids == before.stop_ids
    assert len(after.stop_ids) == 2


def test_the_tokenizers_eos_stays_where_it_means_something_else(tmp_path):
    """A template that writes it, and documents, which end with it."""
    for name, template, turns in (("written", "{{ eos_token if false }}", True), ("documents", "", False)):
        base = make_base_model(tmp_path / name)
        path = base / "chat_template.jinja"
        path.write_text(template + path.read_text("utf-8"), "utf-8")
        folder = exported(base, tmp_path / f"{name}-final", "lora", turns=turns)
        assert AutoTokenizer.from_pretrained(folder).eos_token == OWN, name
        assert len(read(folder / "generation_config.json")["eos_token_id"]) == 2, name


def test_a_configuration_whose_class_takes_no_list(tmp_path, ids):
    from tunesmith.training.export import name_ends

    strict = {"model_type": "unispeech-sat", "eos_token_id": 5}
    for config, wanted in (
        (strict, ids[0]),
        ({"model_type": "llama", "text_config": {"eos_token_id": 5}}, ids),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        name_ends(tmp_path / "config.json", ids)
        found = read(tmp_path / "config.json")
        assert found["eos_token_id"] == wanted
        if "text_config" in config:
            assert found["text_config"]["eos_token_id"] == wanted

"""Generation configurations that transformers loads and would not save."""

import json

import pytest
from tests.cases import each


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    import torch  # noqa: F401


VICUNA = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_length": 4096,
    "pad_token_id": 0,
    "temperature": 0.9,
    "top_p": 0.6,
}


@each(
    "given, wanted, said",
    [
        (
            VICUNA,
            VICUNA | {"do_sample": True},
            "do_sample is set to true, since temperature, top_p are set",
        ),
        ({"top_k": 20}, {"do_sample": True, "top_k": 20}, "do_sample is set to true, since top_k is set"),
        ({"temperature": 0.9, "do_sample": False}, {"do_sample": False}, "temperature is left out"),
        ({"temperature": 0.0, "eos_token_id": [1, 2]}, {"eos_token_id": [1, 2]}, "temperature is left out"),
        ({"early_stopping": True, "num_beams": 1}, {"num_beams": 1}, "early_stopping is left out"),
        ({"output_scores": True}, {}, "output_scores is left out"),
        ({"pad_token_id": -1, "bos_token_id": 4}, {"bos_token_id": 4}, "pad_token_id is left out"),
        (
            {"use_cache": False, "cache_implementation": "static"},
            {"use_cache": False},
            "cache_implementation is left out",
        ),
        ({"do_sample": True, "temperature": 0.6}, {"do_sample": True, "temperature": 0.6}, ""),
        ({"num_beams": 4, "early_stopping": True}, {"num_beams": 4, "early_stopping": True}, ""),
    ],
)  # fmt: skip
def test_mended_when_loaded(tiny_model, tmp_path_factory, caplog, given, wanted, said):
    import shutil

    import torch

    from tunesmith.engines.load import load_model

    folder, out = (tmp_path_factory.mktemp(name) for name in ("model", "out"))
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    (folder / "generation_config.json").write_text(json.dumps(given))
    caplog.clear()
    load_model(folder, dtype=torch.float32).save_pretrained(out)
    saved = json.loads((out / "generation_config.json").read_text())
    assert {name: value for name, value in saved.items() if name != "transformers_version"} == wanted
    logged = [r.getMessage() for r in caplog.records if "generation configuration" in r.getMessage()]
    assert logged == (
        [f"Adjusted the loaded generation configuration (not the model's file): {said}."] if said else []
    )

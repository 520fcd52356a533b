"""How many positions a model has, as transformers means its configuration."""

import json

from tests.cases import each

from tunesmith.engines.positions import max_positions, position_limit

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8192}
LONG = {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


@each(
    "config, limit",
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024, "n_ctx": 512}, 1024),
        ({"max_seq_len": 2048}, 2048),
        ({}, None),
        ({"max_position_embeddings": None, "state_size": 16}, None),
        ({"max_position_embeddings": "2048"}, None),
        ({"text_config": {"max_position_embeddings": 4096}, "max_position_embeddings": 77}, 4096),
        ({"max_position_embeddings": 2048, "rope_scaling": None}, 2048),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}}, 8192),
        ({"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "dynamic", "factor": 2}}, 4096),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default"}}, 2048),
        ({"max_position_embeddings": 32768, "rope_scaling": YARN}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": YARN}, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 131072, "rope_parameters": LLAMA3}, 131072),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": LONG,
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_local_base_freq": 10000.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            131072,
        ),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, None),
    ],
)
def test_positions(config, limit):
    assert position_limit(config) == limit


def test_a_folder_without_a_configuration_names_no_limit(tmp_path):
    assert max_positions(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 99}))
    assert max_positions(tmp_path) == 99

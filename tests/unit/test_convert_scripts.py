"""Scripts that hold a tool's command, and values that nobody meant."""

import pytest

from tunesmith.api.flags import FIELD_OF
from tunesmith.errors import ManifestError, UsageError
from tunesmith.local.convert_config import convert
from tunesmith.local.tool_fields import SPECIAL
from tunesmith.local.tool_reading import read_settings, tool_of
from tunesmith.local.tool_settings import USUAL

TRL = {"model_name_or_path": "org/m", "dataset_name": "org/d"}
LLAMA_FACTORY = {"model_name_or_path": "org/m", "stage": "sft", "dataset": "own"}


def converted_script(text):
    settings = read_settings(text, "train.sh")
    made = convert(settings, tool_of(settings), "demo", "train.sh")
    return made.document["spec"], " ".join(made.notes)


def test_variables_of_a_script_are_filled_in_and_what_follows_the_command_is_none_of_its_values():
    script = (
        "MODEL=org/m\nexport LR=1e-4\n"
        "trl sft --model_name_or_path ${MODEL} --dataset_name org/d --learning_rate $LR --seed $SEED "
        "--num_train_epochs 2 2>&1 | tee train.log\n"
    )
    spec, notes = converted_script(script)
    assert spec["model"]["uri"] == "hf://org/m"
    assert (spec["training"]["learningRate"], spec["training"]["numTrainEpochs"]) == (1e-4, 2)
    assert "seed: $SEED is a variable that the script does not set" in notes


def test_a_value_of_any_type_is_carried_over_left_out_or_refused():
    odd = [
        "", -1, [], {}, [[1]], {"a": 1}, "x" * 5000, "a\0b", [{"path": ["a"], "split": 3}],
        [{"path": "a/b", "columns": 5, "split": "train[:999%]"}],
        [{"path": "a/b", "type": {"field_output": {"x": 1}}}], {"datasets": [1, {"id": None}]},
    ]  # fmt: skip
    names = {*FIELD_OF, *SPECIAL, *USUAL, "report_to", "datasets", "dataset_mixture", "eval_dataset"}
    crashed = set()
    for base in ({**TRL, "use_peft": True}, LLAMA_FACTORY):
        for name in names:
            for value in odd:
                try:
                    convert({**base, name: value}, tool_of(base), "demo")
                except (UsageError, ManifestError):
                    continue
                except (TypeError, ValueError, LookupError, AttributeError, OSError) as error:
                    crashed.add((name, str(value)[:40], repr(error)[:80]))
    assert crashed == set()


def test_each_line_of_a_script_is_a_command_of_its_own():
    template = "{{ a }}\n{{ b }}"
    command = f"trl sft --model_name_or_path org/m --chat_template '{template}' --use_peft"
    spec, notes = converted_script(f"set -e\npip install --quiet trl\n{command}\necho done\n")
    assert "lora" in spec["method"]
    assert spec["model"]["chatTemplate"] == {"text": template}
    assert "done" not in notes
    with pytest.raises(UsageError, match="several commands with --model_name_or_path: keep one"):
        converted_script(f"{command}\n{command}\n")


def test_a_script_that_names_its_configuration_says_which_file_to_convert():
    with pytest.raises(UsageError, match=r"in sft\.yaml: convert that file"):
        converted_script("trl sft --config sft.yaml")

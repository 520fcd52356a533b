"""What a process that only encodes text does without."""

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tunesmith.tokens.light_imports import hidden

NAME = "colorsys"  # of the standard library, and imported by nothing here


def test_a_hidden_package_looks_uninstalled_meanwhile():
    sys.modules.pop(NAME, None)
    with hidden(NAME):
        assert find_spec(NAME) is None
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(NAME)
    assert importlib.import_module(NAME).__name__ == NAME


def test_what_is_imported_already_stays():
    before = sys.modules["importlib"]
    with hidden("importlib"):
        assert sys.modules["importlib"] is before
    assert sys.modules["importlib"] is before


@pytest.mark.engine
@pytest.mark.parametrize(
    ("program", "left_out"),
    [
        ("from tunesmith.tokens.light_imports import auto_tokenizer; auto_tokenizer()", ["boto3"]),
        ("import tunesmith.tokens.encode_only", ["torch", "boto3"]),
    ],
    ids=["any", "encodes-only"],
)
def test_tokenizers_do_without(program, left_out):
    shown = "import sys; print([name for name in ('torch', 'boto3') if not sys.modules.get(name)])"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{shown}"], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{left_out}\n", "")

"""What `tunesmith export` is asked for: the same as a manifest's `export`, or one clear sentence."""

import pytest
from tests.cases import each

from tunesmith.errors import UsageError
from tunesmith.local.export import ExportOptions, requested

pytestmark = pytest.mark.engine


@each(
    ("options", "words"),
    [
        ({"to": ["onnx"]}, "--to onnx: choose from merged, gguf, hub"),
        ({"to": []}, "--to .missing.: choose from"),
        ({"to": ["hub"]}, "--to hub and --repo-id"),
        ({"to": ["merged"], "repo_id": "a/b"}, "--to hub and --repo-id"),
        ({"to": ["merged"]}, "--output is missing"),
        (
            {"to": ["gguf"], "output": "o", "quantization": "Q9"},
            "--quantization: Input should be 'F32', 'F16'",
        ),
        ({"to": ["hub"], "repo_id": "model"}, "--repo-id: must be organisation/name"),
    ],
)
def test_arguments_that_do_not_fit_are_named(monkeypatch, options, words):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with pytest.raises(UsageError, match=words):
        requested(ExportOptions(**{"model": "m", **options}))


def test_a_push_without_a_token_is_refused_before_anything_is_made(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match="set HF_TOKEN"):
        requested(ExportOptions("m", ["hub"], repo_id="a/b"))

"""`export` of a FineTuneJob: the forms in which its result is published besides `final_model`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from tunesmith.api.base import Model, Rule
from tunesmith.api.evaluate_only import NONE, evaluate_only
from tunesmith.api.scalars import RepositoryName


class MergedExport(Model):
    """Whole weights in the model's type, an adapter merged into them."""


class GgufExport(Model):
    """One GGUF file, for llama.cpp, Ollama and the like."""

    quantization: Literal["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"] = "Q8_0"
    """llama.cpp's name of how matrices are stored."""


class HubExport(Model):
    """A repository on the hub, with everything that is exported."""

    repo_id: RepositoryName
    """organisation/name of the repository; it is made if there is none."""
    private: bool = True
    """Whether a new repository is private; an existing public one is refused."""


class ExportSpec(Model):
    """Forms in which the tuned model is published besides final_model; each is proved first."""

    merged: MergedExport | None = None
    """Whole weights in the model's type, an adapter merged into them: export/merged/."""
    gguf: GgufExport | None = None
    """One GGUF file: export/gguf/."""
    hub: HubExport | None = None
    """A repository on the hub; needs hub.tokenSecretRef."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "set at least one of merged, gguf and hub",
            "has(self.merged) || has(self.gguf) || has(self.hub)",
            lambda m: bool(m.merged or m.gguf or m.hub),
        ),
    )


def _pushes(spec: Any) -> bool:
    return spec.export is not None and spec.export.hub is not None


_PUSHES = "has(self.export) && has(self.export.hub)"
EXPORT_RULES = (
    Rule(
        "cannot be combined with method none, which trains nothing; use `tunesmith export`",
        f"!{NONE} || !has(self.export)",
        lambda m: not evaluate_only(m) or m.export is None,
        "export",
    ),
    Rule(
        "needs hub.tokenSecretRef, a token that may write to the repository",
        f"!({_PUSHES}) || has(self.hub.tokenSecretRef)",
        lambda m: not _pushes(m) or m.hub.token_secret_ref is not None,
        "export.hub",
    ),
    Rule(
        "cannot be combined with hub.offline",
        f"!({_PUSHES}) || !self.hub.offline",
        lambda m: not _pushes(m) or not m.hub.offline,
        "export.hub",
    ),
)

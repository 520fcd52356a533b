"""The prompts of a RejectionSampleJob, or of a FineTuneJob's evaluations, as the model will see them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any

from rich.console import Console
from rich.text import Text

from tunesmith.api.datasets import PromptsSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.generation import EngineSpec, SamplingSpec, VerifierSpec
from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.data.prepared import histogram as histogram_of
from tunesmith.data.prompts.expected import ExpectedReplies, expected_replies, longest_reply
from tunesmith.data.prompts.load import Prompts, prepare_prompts
from tunesmith.data.report import counted
from tunesmith.engines.positions import max_positions
from tunesmith.local.preview.asked import PreviewRequest
from tunesmith.local.preview.console import BINS, histogram, messages, say, takes
from tunesmith.report.preview import render_prompts_preview
from tunesmith.sampling.verifiers import check_record, task_of
from tunesmith.text import visible
from tunesmith.tokens.chat import ChatTokenizer

_PAGE_BINS = 20
_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Sampling:
    """The fields of a manifest that make one sampling. `name` is the evaluation's, "" for none."""

    prompts: PromptsSpec
    sampling: SamplingSpec
    engine: EngineSpec | None
    verifier: VerifierSpec | None
    verifier_path: str
    name: str = ""


def preview_prompts(asked: PreviewRequest, spec: RejectionSampleSpec) -> None:
    """Show the prompts that a RejectionSampleJob samples replies for. Raises TunesmithError."""
    files, tokenizer = asked.tokenizer(spec.model)
    what = _Sampling(spec.prompts, spec.sampling, spec.engine, spec.verifier, "verifier")
    _preview(asked, what, tokenizer, max_positions(files.base))


def preview_evaluations(asked: PreviewRequest, spec: FineTuneSpec) -> None:
    """Show the prompts of each evaluation, as the job's own model sees them. Raises TunesmithError."""
    if not spec.evaluation:
        return
    files, tokenizer = asked.tokenizer(spec.model)
    for number, each in enumerate(spec.evaluation):
        path = f"evaluation[{number}].verifier"
        what = _Sampling(each.prompts, each.sampling, each.engine, each.verifier, path, each.name)
        say(asked.console, f"Evaluation {each.name}", "bold underline")
        _preview(asked, what, tokenizer, max_positions(files.base))


def _preview(asked: PreviewRequest, what: _Sampling, tokenizer: ChatTokenizer, positions: int | None) -> None:
    verifier = task_of(what.verifier, what.verifier_path)
    with asked.counting("reading the prompts") as status:
        prompts = prepare_prompts(
            what.prompts,
            tokenizer,
            asked.options,
            asked.folder / f"prompts-{what.name or 'all'}",
            check=partial(check_record, verifier),
            progress=status.records,
        )
    with prompts:
        expected = expected_replies(
            prompts.lengths, longest_reply(what.engine, positions, tokenizer.tokenizer), what.sampling
        )
        sentences = [*expected.sentences(what.sampling.num_samples), *_named(prompts, expected)]
        groups = _groups(prompts, tokenizer, asked.first)
        _show(asked.console, prompts, groups, sentences)
        asked.write_page(_page(asked, what, prompts, groups, sentences), what.name)


def _named(prompts: Prompts, expected: ExpectedReplies) -> list[str]:
    """Name the first prompts that do not fit."""
    first = [prompts[at] for at in expected.too_long[:_NAMED]]
    return [f"Does not fit: {each.id}, {counted(len(each.ids), 'token')}." for each in first]


def _groups(prompts: Prompts, tokenizer: ChatTokenizer, first: int) -> list[dict[str, Any]]:
    """Return the first prompts of each set, as the page and the terminal show them."""
    groups = []
    for name, members in groupby(range(len(prompts)), lambda at: prompts[at].set):
        shown = [_values(prompts, at, tokenizer) for at in islice(members, first)]
        groups.append({"title": name and f"Set {name}", "shown": shown})
    return groups


def _values(prompts: Prompts, at: int, tokenizer: ChatTokenizer) -> dict[str, Any]:
    prompt = prompts[at]
    return {
        "name": prompt.id,
        "facts": counted(len(prompt.ids), "token"),
        "turns": [(message.role, message.shown) for message in prompt.messages],
        "text": tokenizer.decode(prompt.ids),
    }


def _show(console: Console, prompts: Prompts, groups: list[dict[str, Any]], sentences: list[str]) -> None:
    for group in groups:
        if group["title"]:
            say(console, group["title"], "bold")
        for each in group["shown"]:
            say(console, f"Prompt {each['name']}: {each['facts']}", "bold")
            messages(console, each["turns"])
            say(console, "  What the model sees:", "dim")
            console.print(Text(visible(each["text"])), soft_wrap=True)
            console.print()
    say(console, "Prompts", "bold")
    for line in prompts.sentences():
        say(console, f"  {line}")
    takes(console, sentences)
    histogram(console, "Prompts by number of tokens", histogram_of(prompts.lengths, BINS))


def _page(
    asked: PreviewRequest,
    what: _Sampling,
    prompts: Prompts,
    groups: list[dict[str, Any]],
    sentences: list[str],
) -> str:
    about = f"{what.name}: " if what.name else ""
    facts = prompts.facts
    return render_prompts_preview(
        {
            "title": f"{asked.job.name}: {about}what it asks",
            "summary": [
                ("Prompts", len(prompts)),
                ("Replies per prompt", what.sampling.num_samples),
                ("Tokens of prompts", facts["tokens"]),
                ("Longest prompt", facts["longest"]),
            ],
            "takes": sentences,
            "notes": prompts.sentences(),
            "lengths": histogram_of(prompts.lengths, _PAGE_BINS),
            "groups": groups,
        }
    )

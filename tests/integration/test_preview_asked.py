"""`tunesmith preview` of prompts and dialogues: what a job would ask, and what it takes; nothing is sent."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from tests.support import finetune, with_positions, write_jsonl

from tunesmith.api.manifest import parse_document
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.prompts.load import prepare_prompts
from tunesmith.local.preview.jobs import preview_jobs
from tunesmith.tokens.chat import ChatTokenizer

SEED = {"question": "Why is it dark?", "answer": "It is night.", "correction": "Our side is turned away."}
PRICE = {"inputPerMillion": 0.1, "outputPerMillion": 0.4}


def previewed(
    folder: Path, *documents: dict[str, Any], count: int = 3, page: Path | None = None
) -> tuple[int, str]:
    """Exit code and text of a preview in this process."""
    console = Console(file=io.StringIO(), width=100, highlight=False)
    jobs = [parse_document(document, "m.yaml", number) for number, document in enumerate(documents, 1)]
    code = preview_jobs(jobs, count, folder / "work", console, page)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def job(kind: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "look"},
        "spec": {"output": {"uri": "file:///nowhere/out"}, **spec},
    }


def sampling(model: Path, data: Path, **spec: Any) -> dict[str, Any]:
    return job(
        "RejectionSampleJob",
        **{
            "model": {"uri": model.as_uri()},
            "prompts": {"uri": data.as_uri(), "instruction": {}},
            "verifier": {"numeric": {"field": "answer"}},
            "sampling": {"numSamples": 8, "maxNewTokens": 50},
            "engine": {"transformers": {}},
            "resources": {"gpusPerNode": 0},
            **spec,
        },
    )


def dialogues(data: Path, **spec: Any) -> dict[str, Any]:
    openai = {"baseUrl": "https://nobody.invalid/v1", "model": "strong-model"}
    limits = {"maxParallelRequests": 4, "requestsPerMinute": 60}
    roles = {role: {"endpoint": "strong", "maxTokens": 40} for role in ("question", "answer", "correction")}
    return job(
        "DialogueGenJob",
        **{
            "seeds": {"uri": data.as_uri()},
            "rounds": 2,
            "endpoints": {"strong": {"openai": openai, "limits": limits, "price": PRICE}},
            "roles": roles,
            **spec,
        },
    )


def test_prompts_are_shown_as_sampling_sends_them(tmp_path: Path, tiny_model: Path) -> None:
    model = with_positions(tiny_model, tmp_path / "model", 100)
    records = [{"id": f"sum-{n}", "instruction": f"{n} + {n} = ?", "answer": 2 * n} for n in range(5)]
    records += [{"id": "long", "instruction": "word " * 400, "answer": 1}]
    records += [{"id": "tight", "instruction": "word " * 15, "answer": 1}]
    data = write_jsonl(tmp_path / "sums.jsonl", records)
    document = sampling(model, data)
    code, text = previewed(tmp_path, document, count=2, page=tmp_path / "page.html")
    assert code == 0, text
    prompts = prepare_prompts(
        parse_document(document, "m.yaml", 1).spec.prompts,  # type: ignore[attr-defined]
        ChatTokenizer.load(model),
        StorageOptions(),
        tmp_path / "prompts",
    )
    for prompt in prompts[:2]:
        whole = ChatTokenizer.load(model).decode(prompt.ids)
        assert f"Prompt {prompt.id}: {len(prompt.ids)} tokens\n" in text
        assert whole in text
        assert escape(whole) in (tmp_path / "page.html").read_text("utf-8")
    assert "Prompt sum-2" not in text
    assert "7 records → 7 prompts\n" in text
    fitting = [len(each.ids) for each in prompts if len(each.ids) < 100]
    assert len(fitting) == 6
    assert "48 replies to 6 prompts, 8 each.\n" in text
    most = 8 * sum(min(50, 100 - length) for length in fitting)
    assert f"{sum(fitting):,} tokens of prompts, at most {most:,} of replies.\n" in text
    assert (
        "Without a reply, since prompt and reply have at most 100 tokens (prompt_too_long): 1 prompt" in text
    )
    assert f"Does not fit: long, {len(prompts[5].ids):,} tokens.\n" in text
    assert "With room for fewer than maxNewTokens of a reply" in text
    assert "Prompts by number of tokens\n" in text


def test_a_record_that_cannot_be_judged_is_bad_here_too(tmp_path: Path, tiny_model: Path) -> None:
    data = write_jsonl(tmp_path / "sums.jsonl", [{"instruction": "1 + 1 = ?"}])
    code, text = previewed(tmp_path, sampling(tiny_model, data))
    assert code == 2
    assert "sums.jsonl, line 1" in text
    assert "answer" in text


def test_evaluations_are_previewed_with_training_and_alone(tmp_path: Path, tiny_model: Path) -> None:
    records = [{"id": "one", "instruction": "Say 1.", "output": "1"}]
    data = write_jsonl(tmp_path / "data.jsonl", records)
    prompts = {"uri": data.as_uri(), "instruction": {}}
    evaluation = [{"name": "easy", "prompts": prompts, "verifier": {"exactMatch": {"field": "output"}}}]
    trains = finetune(
        "trains", model=tiny_model, data=data, output="file:///nowhere/out", evaluation=evaluation
    )
    trains["spec"]["datasets"] = [{"uri": data.as_uri(), "instruction": {}}]
    code, text = previewed(tmp_path, trains, page=tmp_path / "page.html")
    assert code == 0, text
    assert "1 record → 1 sample" in text
    assert "Evaluation easy\n" in text
    assert "1 reply to 1 prompt, one each." in text
    assert "what it trains on" in (tmp_path / "page.html").read_text("utf-8")
    assert "easy: what it asks" in (tmp_path / "page-easy.html").read_text("utf-8")
    alone = job("FineTuneJob", model={"uri": tiny_model.as_uri()}, method={"none": {}}, evaluation=evaluation)
    code, text = previewed(tmp_path, alone)
    assert code == 0, text
    assert "Evaluation easy\n" in text


def test_what_neither_trains_nor_evaluates_has_no_preview(tmp_path: Path, tiny_model: Path) -> None:
    previews = [{"name": "p", "user": "Hi"}]
    only = job("FineTuneJob", model={"uri": tiny_model.as_uri()}, method={"none": {}}, previews=previews)
    code, text = previewed(tmp_path, only)
    assert code == 2
    assert "it trains nothing and has no evaluation" in text


def test_dialogues_show_the_first_requests_of_each_role(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "seeds.jsonl", [{"id": f"s-{n}", **SEED} for n in range(6)])
    page = tmp_path / "page.html"
    code, text = previewed(tmp_path, dialogues(data), count=1, page=page)
    assert code == 0, text
    for role in ("question", "answer", "correction"):
        assert f"Role {role}\ns-0, round 2: to strong-model (endpoint strong), at most 40 tokens" in text
    assert text.count("s-0, round 2") == 3
    assert "s-1" not in text
    assert "6 records → 6 seeds\n" in text
    assert "About 18 calls" in text
    assert "0.1 USD per million prompt tokens" in text
    assert "Endpoint strong: at most 4 requests at once, 60 requests per minute; each call is" in text
    html = page.read_text("utf-8")
    assert all(f'<h3 dir="auto" class="group">Role {role}</h3>' in html for role in ("question", "answer"))
    assert "strong-model" in html


def test_a_budget_that_is_too_small_is_said(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "seeds.jsonl", [{"id": f"s-{n}", **SEED} for n in range(6)])
    code, text = previewed(tmp_path, dialogues(data, budget={"maxUsd": 1e-9}))
    assert code == 0, text
    assert "budget.maxUsd is 1e-09: the job would stop before its end." in text


def test_a_bad_seed_is_named(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "seeds.jsonl", [{"question": "Why?"}])
    code, text = previewed(tmp_path, dialogues(data))
    assert code == 2
    assert "seeds.jsonl, line 1" in text

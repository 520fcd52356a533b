"""`tunesmith chat` with the tiny model: it talks nonsense, but the talking is real."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.fixtures.base_model import LEARNED, without_template
from tests.fixtures.steps import small_spec
from tests.support import CODE, chat_records, environment, finetune, run_cli, write_jsonl, write_manifest

from tunesmith.data.prompts.presets import save_presets
from tunesmith.data.report import DatasetReport
from tunesmith.errors import ModelError, StoragePermanentError, UsageError
from tunesmith.local import chat_session
from tunesmith.local.chat import PRESETS, ChatOptions, talk

Talk = Callable[..., tuple[str, list[list[dict[str, str]]]]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Talk:
    """A conversation in this process: what was shown, and the messages of each question."""
    asked: list[list[dict[str, str]]] = []
    answer = chat_session.reply

    def spied(model: Any, tokenizer: Any, messages: Any, *arguments: Any, **options: Any) -> str:
        asked.append([message.as_dict() for message in messages])
        return answer(model, tokenizer, messages, *arguments, **options)

    def do(lines: list[str], model: Path | str, **options: Any) -> tuple[str, list[list[dict[str, str]]]]:
        text = "".join(line + "\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        monkeypatch.setattr(chat_session, "reply", spied)
        console = Console(file=io.StringIO(), width=80, highlight=False)
        settings = {"max_new_tokens": 8, "preset": "creative", "work_dir": tmp_path / "work", **options}
        assert talk(ChatOptions(str(model), **settings), console) == 0
        return console.file.getvalue(), asked  # type: ignore[attr-defined]

    return do


def test_a_conversation_and_a_new_one(say: Talk, tiny_model: Path) -> None:
    _, asked = say(["Hi", "And?", "/reset", "Hi", ""], tiny_model, system="Be brief.")
    system, first = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}
    assert asked[0] == [system, first]
    assert [message["role"] for message in asked[1]] == ["system", "user", "assistant", "user"]
    assert asked[2] == [system, first]


@pytest.mark.parametrize(
    "ending", [[], [""], ["/exit"], ["/quit"], ["  "]], ids=["eof", "empty", "exit", "quit", "blank"]
)
def test_endings(say: Talk, tiny_model: Path, ending: list[str]) -> None:
    _, asked = say(["Hi", *ending, *(["not asked"] if ending else [])], tiny_model)
    assert len(asked) == 1


def test_help_and_blanks_are_no_messages(say: Talk, tiny_model: Path) -> None:
    shown, asked = say(["/help", "  Hi  "], tiny_model)
    assert "/reset starts a new conversation" in " ".join(shown.split())
    assert [messages[-1]["content"] for messages in asked] == ["Hi"]


def test_what_is_shown_is_the_reply(say: Talk, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown piece by piece, and the whole of it goes into the next question."""
    pieces: list[str] = []
    translate = chat_session.visible
    monkeypatch.setattr(chat_session, "visible", lambda text: pieces.append(text) or translate(text))
    _, asked = say(["Hi", "And?"], tiny_model, max_new_tokens=16)
    assert len(pieces) > 4
    assert asked[1][-2]["content"] in "".join(pieces)


def test_the_same_question_has_the_same_answer(say: Talk, tiny_model: Path) -> None:
    """The likeliest tokens, and with a seed for each turn also the drawn ones."""
    for preset in PRESETS:
        runs = [say(["Hi", "And?"], tiny_model, preset=preset)[0] for _ in range(2)]
        assert runs[0] == runs[1]


def test_a_stop_text_ends_the_reply(say: Talk, tiny_model: Path) -> None:
    _, asked = say(["Hi", "And?"], tiny_model, max_new_tokens=16)
    whole = asked[1][-2]["content"]
    stop = whole[len(whole) // 2 :][:2]
    asked.clear()
    shown, asked = say(["Hi", "And?"], tiny_model, max_new_tokens=16, stop=[stop])
    assert asked[1][-2]["content"] == whole[: whole.index(stop)].strip()
    assert stop not in shown.splitlines()[0]


def test_a_conversation_too_long_for_the_model(say: Talk, tiny_model: Path) -> None:
    shown, asked = say(["word " * 600, "Hi"], tiny_model)
    assert "the conversation is longer than the model's 512 tokens; /reset starts over" in shown
    assert [messages[-1]["content"] for messages in asked] == ["Hi"]


def test_what_the_template_refuses_is_a_remark(say: Talk, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "strict")
    template = (folder / "chat_template.jinja").read_text()
    refusal = "{% if messages|length > 1 %}{{ raise_exception('one message only') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(refusal + template)
    shown, asked = say(["Hi", "And?", "/reset", "Hi"], folder)
    assert "this cannot be sent to the model" in shown
    assert "one message only" in shown
    assert len(asked) == 2


def test_replies_do_not_steer_the_terminal(
    say: Talk, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile(*arguments: Any, on_text: Any, **options: Any) -> str:
        on_text("[/red]\x1b[2J")
        return "x"

    monkeypatch.setattr(chat_session, "reply", hostile)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hi\n")))
    console = Console(file=io.StringIO(), force_terminal=True)
    talk(ChatOptions(str(tiny_model)), console)
    assert "[/red]␛[2J" in console.file.getvalue()  # type: ignore[attr-defined]


def test_ctrl_c_cuts_a_reply_short(say: Talk, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, on_text: Any, **options: Any) -> str:
        on_text("part")
        raise KeyboardInterrupt

    asked: list[Any] = []
    answers = iter([interrupted, lambda model, tokenizer, messages, *a, **o: asked.append(messages) or "x"])
    monkeypatch.setattr(chat_session, "reply", lambda *a, **o: next(answers)(*a, **o))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hi\nAnd?\n")))
    talk(ChatOptions(str(tiny_model)), Console(file=io.StringIO()))
    assert [message.content for message in asked[0]] == ["Hi", "part", "And?"]


# --- Presets ----------------------------------------------------------------------------------------------


@pytest.fixture
def with_presets(tiny_model: Path, tmp_path: Path) -> Path:
    """A model that was asked in two ways, one of them without any words of the person."""
    folder = shutil.copytree(tiny_model, tmp_path / "presets")
    character = {"uri": "file:///d", "character": {"name": "Tamsin"}, "systemPrompt": "S"}
    spec = small_spec({}, datasets=[character])
    kinds = {"settings": 1, "imitation-without-scene": 1}
    save_presets(folder, spec.datasets, [DatasetReport("x", kinds=kinds)])
    return folder


def test_a_preset_is_asked_by(say: Talk, with_presets: Path) -> None:
    shown, asked = say(["The lake", "The ferry", ""], with_presets, as_name="settings")
    assert "As settings (Tamsin: answers a question or topic). Each question is a separate" in shown
    assert [[message["role"] for message in messages] for messages in asked] == [["system", "user"]] * 2
    assert asked[1][1]["content"].endswith("to the question or topic below.\nThe ferry")
    _, plain = say(["The lake"], with_presets, as_name="none")
    assert plain[-1] == [{"role": "user", "content": "The lake"}]


def test_a_preset_without_words_asks_at_an_empty_line(say: Talk, with_presets: Path) -> None:
    shown, asked = say(["", "hello", "", "/exit", ""], with_presets, as_name="imitation-without-scene")
    assert len(asked) == 2
    assert "takes no input; an empty line sends the prompt, /exit quits" in " ".join(shown.split())


# --- Models -----------------------------------------------------------------------------------------------


def refusal(model: Path | str, tmp_path: Path, **options: Any) -> str:
    with pytest.raises((UsageError, ModelError, StoragePermanentError)) as caught:
        talk(ChatOptions(str(model), work_dir=tmp_path / "work", **options), Console(file=io.StringIO()))
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", "has no model: config.json is missing"),
        ("model.safetensors", "cannot be loaded"),
        ("tokenizer.json", "tokenizer"),
    ],
)
def test_a_file_is_missing(tiny_model: Path, tmp_path: Path, missing: str, words: str) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "broken")
    (folder / missing).unlink()
    assert words in refusal(folder, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"{", "config.json is not a JSON object; the model's files are damaged"),
        ("config.json", b"[]", "config.json is not a JSON object"),
        ("config.json", b'{"model_type": "nonsense"}', "cannot be loaded"),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}", "cannot be loaded"),
        ("model.safetensors", b"short", "cannot be loaded"),
        ("tokenizer.json", b"{", "The tokenizer in"),
    ],
    ids=["config-cut", "config-list", "unknown-type", "weights-cut", "weights-short", "tokenizer-cut"],
)
def test_a_file_is_damaged(tiny_model: Path, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "broken")
    (folder / name).write_bytes(content)
    assert words in refusal(folder, tmp_path)


def test_without_a_chat_template(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in refusal(folder, tmp_path)


def test_base_belongs_to_adapters(tiny_model: Path, tmp_path: Path) -> None:
    assert "is a whole model" in refusal(tiny_model, tmp_path, base=str(tiny_model))


# --- An adapter, trained and kept in the embedded S3 ------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A home whose `.tunesmith` holds a base model and an adapter on it, in S3 and as files."""
    home = tmp_path_factory.mktemp("trained")
    data = write_jsonl(home / "data/a.jsonl", chat_records(4))
    document = finetune(
        "ada", model="s3://models/tiny", data="s3://data/folder/", output="s3://models/ada",
        training={"maxSteps": 2, "saveSteps": 2, "learningRate": 0.5},
    )  # fmt: skip
    path = write_manifest(home, document)
    seeds = ["--seed", f"s3://models/tiny={tiny_model}", "--seed", f"s3://data/folder/={data}"]
    ended = run_cli("run", "-f", path, *seeds, folder=home)
    assert ended.code == 0, ended.text
    assert f"seeded s3://models/tiny from {tiny_model}\n" in ended.text
    assert "Adapter  .tunesmith/jobs/default/ada-ftj/output/final_model\n" in ended.text
    return home


def last(asked: list[list[dict[str, str]]]) -> str:
    return asked[-1][-2]["content"]


def test_an_adapter_with_its_base_from_s3(say: Talk, trained: Path, tiny_model: Path) -> None:
    """From files or from S3, with the base it names or another address of it: always the same model.

    The last checkpoint is that model too.
    """
    files = trained / ".tunesmith/jobs/default/ada-ftj/output/final_model"
    work = {"work_dir": trained / ".tunesmith", "max_new_tokens": 16}
    replies = [
        last(say(["Hi", "And?"], model, base=base, **work)[1])
        for model, base in [
            (files, None), ("s3://models/ada/final_model", str(tiny_model)),
            ("s3://models/ada/checkpoint-2", None),
        ]
    ]  # fmt: skip
    assert len(set(replies)) == 1
    assert replies[0] != last(say(["Hi", "And?"], tiny_model, **work)[1])
    with pytest.raises(ModelError, match=r"^--model \S+/checkpoint-9 does not exist.* holds checkpoint-2\.$"):
        say(["Hi"], "s3://models/ada/checkpoint-9", **work)
    assert not [name for name in os.environ if name.startswith("AWS_") and "ENDPOINT" in name]


def test_an_adapter_without_a_usable_base(trained: Path, tiny_model: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(
        trained / ".tunesmith/jobs/default/ada-ftj/output/final_model", tmp_path / "adapter"
    )
    assert "this is an adapter, not a whole model" in refusal(adapter, tmp_path, base=str(adapter))
    assert "--base gone: there is no such folder" in refusal(adapter, tmp_path, base="gone").replace(
        f"{Path.cwd()}/", ""
    )
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    for named, words in [
        (None, "does not name its base model; pass it with --base"),
        ("/no/such/folder", "the adapter's base model /no/such/folder: there is no such folder"),
        ("just-a-name", "is not a model on the hub"),
    ]:
        path.write_text(json.dumps({**config, "base_model_name_or_path": named}))
        assert words in refusal(adapter, tmp_path)
    (adapter / "adapter_model.safetensors").write_bytes(b"cut")
    assert "cannot be read" in refusal(adapter, tmp_path, base=str(tiny_model))


def test_nothing_in_s3(trained: Path) -> None:
    with pytest.raises(StoragePermanentError, match=r"--model s3://models/gone: There is nothing"):
        talk(ChatOptions("s3://models/gone", work_dir=trained / ".tunesmith"), Console(file=io.StringIO()))


NOISE = """
import atexit

def noise():
    import logging, warnings
    from transformers.utils import logging as advice

    warnings.warn("noise")
    logging.getLogger("kernels").warning("noise")
    advice.get_logger("transformers.noise").warning("noise")
    advice.get_logger("transformers.noise").warning_advice("noise")

atexit.register(noise)
"""


def test_the_command_itself(trained: Path, tmp_path: Path) -> None:
    """In a process of its own: a pipe in, nothing but the conversation out, and no noise of libraries.

    peft has a remark on this adapter, whose base is elsewhere than it says; the rest is made for the test.
    """
    (tmp_path / "sitecustomize.py").write_text(NOISE)
    adapter = trained / ".tunesmith/jobs/default/ada-ftj/output/final_model"
    done = subprocess.run(
        [sys.executable, "-c", CODE, "chat", "--model", adapter, "--max-new-tokens", "4"],
        cwd=trained, env=environment(_first_on_path(tmp_path)), input="Hi\n", capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("you> model> ")
    assert done.stdout.endswith("\nyou> \n")


def _first_on_path(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


# --- Tools ------------------------------------------------------------------------------------------------


TOOLS = [{"name": "rain", "description": "Is it wet"}]
CALLING = {
    "tools": TOOLS,
    "messages": [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "rain", "arguments": {"at": 1}}]},
        {"role": "tool", "content": "wet"},
        {"role": "assistant", "content": "Yes."},
    ],
}


@pytest.fixture(scope="module")
def caller(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that learned to call a tool and to answer by its result, with tools.json beside it.

    By a ready template, which is saved with the model.
    """
    folder = tmp_path_factory.mktemp("caller")
    base = without_template(tiny_model, folder / "base")
    data = write_jsonl(folder / "data.jsonl", [CALLING] * 2)
    document = finetune(
        "caller", model=base, data=data, output=folder / "out", method={"full": {}},
        training={"maxSteps": 80, "saveSteps": 80, "maxLength": 400, "gradientAccumulationSteps": 1},
    )  # fmt: skip
    document["spec"]["model"]["chatTemplate"] = {"name": "chatml"}
    ended = run_cli("run", "-f", write_manifest(folder, document), folder=folder, timeout=600)
    assert ended.code == 0, ended.text
    (folder / "tools.json").write_text(json.dumps(TOOLS))
    return folder


@pytest.fixture
def calling(say: Talk, caller: Path) -> Callable[[list[str]], tuple[str, list[list[dict[str, str]]]]]:
    chosen = {"tools": str(caller / "tools.json"), "preset": "precise", "max_new_tokens": 80}
    return lambda lines: say(lines, caller / "out/final_model", **chosen)


CALL = '<tool_call>\n{"name": "rain", "arguments": {"at": 1}}\n</tool_call>'


def test_a_call_is_answered_by_the_person(calling: Any) -> None:
    shown, asked = calling(["Rain?", "wet", "Rain?"])
    assert CALL in shown
    assert 'rain is called with {"at": 1}; what does it return?' in shown
    assert "model> Yes." in shown
    assert [message["role"] for message in asked[1]] == ["user", "assistant", "tool"]
    assert asked[1][1]["tool_calls"] == [
        {"type": "function", "function": {"name": "rain", "arguments": {"at": 1}}}
    ]
    assert (asked[1][2]["content"], asked[1][2]["name"]) == ("wet", "rain")
    # The next question has all of it before it.
    roles = [message["role"] for message in asked[2]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert asked[2][:3] == asked[1]


def test_a_base_model_stops_by_the_template_that_it_was_given(caller: Path) -> None:
    """Wherever it is loaded: the template's end of a turn is not the base's own end of a document."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(caller / "out/final_model")
    tokenizer = AutoTokenizer.from_pretrained(caller / "out/final_model")
    prompt = tokenizer.apply_chat_template(
        CALLING["messages"][:1],  # type: ignore[index]
        tools=[{"type": "function", "function": tool} for tool in TOOLS],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    (ids,) = model.generate(**prompt, max_new_tokens=120, do_sample=False)
    said = tokenizer.decode(ids[prompt["input_ids"].shape[1] :])
    assert said == f"{CALL}{LEARNED}"


def test_a_call_may_stay_without_an_answer(calling: Any) -> None:
    for left in ([], ["/exit", "not asked"]):
        _, asked = calling(["Rain?", *left])
        assert len(asked) == 1
        asked.clear()
    shown, asked = calling(["Rain?", "/reset", "Rain?"])
    assert "a new conversation" in shown
    assert [len(messages) for messages in asked] == [1, 1]


def test_results_come_from_a_pipe(caller: Path) -> None:
    command = [sys.executable, "-c", CODE, "chat", "--model", str(caller / "out/final_model")]
    command += ["--tools", str(caller / "tools.json"), "--preset", "precise", "--max-new-tokens", "80"]
    ended = subprocess.run(
        command,
        input="Rain?\nwet\n",
        capture_output=True,
        text=True,
        cwd=caller,
        env=environment(),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert CALL in ended.stdout
    assert "model> Yes." in ended.stdout


def test_its_calls_are_sampled_and_learned_again(caller: Path, tmp_path: Path) -> None:
    """By a real engine: a reply is kept with its call, and the next job learns what the template writes."""
    model = {"uri": (caller / "out/final_model").as_uri()}
    prompt = {"id": "p1", "tools": TOOLS, "messages": CALLING["messages"][:1]}  # type: ignore[index]
    data = write_jsonl(tmp_path / "prompts.jsonl", [prompt])
    sampler = {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "RejectionSampleJob",
        "metadata": {"name": "calls"},
        "spec": {
            "model": model,
            "prompts": {"uri": data.as_uri(), "chat": {}},
            "verifier": {"regex": {"pattern": "rain"}},
            "sampling": {"numSamples": 2, "temperature": 0.01, "maxNewTokens": 80},
            "engine": {"transformers": {}},
            "output": {"uri": (tmp_path / "sampled").as_uri()},
        },
    }
    learner = finetune(
        "again", model=caller / "out/final_model", data=tmp_path / "sampled/sampled_data.json",
        output=tmp_path / "again", training={"maxSteps": 1, "saveSteps": 1, "maxLength": 400},
    )  # fmt: skip
    learner["spec"]["datasets"] = [{"uri": (tmp_path / "sampled/sampled_data.json").as_uri(), "sampled": {}}]
    path = write_manifest(tmp_path, sampler, learner)
    ended = run_cli("run", "-f", path, folder=tmp_path, timeout=600)
    assert ended.code == 0, ended.text
    one, _ = json.loads((tmp_path / "sampled/sampled_data.json").read_text("utf-8"))
    assert one["response"] == CALL
    (call,) = one["response_message"]["tool_calls"]
    assert call["function"] == {"name": "rain", "arguments": {"at": 1}}
    shown = (tmp_path / "again/training_samples_preview.txt").read_text("utf-8")
    assert f"«{CALL}<|im_end|>»" in shown


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (None, "No such file"),
        ("{", "is not JSON"),
        ('{"a": 1}', "not a list"),
        ("[{}]", "tools[0].name is missing"),
    ],
)
def test_tools_that_cannot_be_shown(tiny_model: Path, tmp_path: Path, tools: str | None, said: str) -> None:
    if tools is not None:
        (tmp_path / "tools.json").write_text(tools)
    assert said in refusal(tiny_model, tmp_path, tools=str(tmp_path / "tools.json"))

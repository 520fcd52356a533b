"""`tunesmith data check` and `convert`, in this process."""

import gzip
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import zstandard
from tests.cases import each
from tests.support import chat_records, write_jsonl

from tunesmith import cli
from tunesmith.local import data_convert

DOCS = Path(__file__).parents[2] / "docs/data.md"
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
PAIRS = [{"human": "q", "assistant": "a"}]
ANSWERS = [{"role": "assistant", "text": text} for text in "ab"]
TREE = {"prompt": {"role": "prompter", "text": "q", "replies": ANSWERS}}
ALPACA = {"instruction": "q", "input": "", "output": "a"}
CASE = {"fact": "甲偷了一辆车。", "relevant_articles": ["264"], "charge": "盗窃罪", "prison_time": 12}
OWN = [{"role": "user", "content": "q"}]
SAMPLED = {**CASE, "prompt": OWN, "response": "盗窃罪 | 12", "num_correct_for_this_sample": 1}
LINE = {"speaker": "Paimon", "text": "Hey!", "source_title": "By the lake"}
SEED = {"question": "q", "answer": "a", "correction": "b"}
EXTRACTED = {"user_hash": "u", "user_profile": {"name": "Ann"}, "next_question": "And then?",
             "context": [{"role": "user", "content": "Tell me."}]}  # fmt: skip


def names():
    return sorted(path.name for path in Path().iterdir())


class Ended:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.lines = [line.strip() for line in out.splitlines()]


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """The command in this process: `call("check", path)`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def do(*arguments):
        monkeypatch.setattr(sys, "argv", ["tunesmith", "data", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code or 0
        return Ended(code, *capsys.readouterr())

    return do


# --- check ------------------------------------------------------------------------------------------------

GUESSED = {
    "openai": (CHAT, "chat", "OpenAI messages", "1 conversation"),
    "sharegpt": ({"conversations": TURNS}, "chat", "ShareGPT conversations", "1 conversation"),
    "pairs": ({"conversation": PAIRS}, "chat", "lists of pairs", "1 conversation"),
    "tree": (TREE, "chat", "message trees", "2 conversations"),
    "alpaca": (ALPACA, "instruction", "Alpaca records", "1 conversation"),
    "text": ({"text": "Hello"}, "text", "texts", "1 document"),
    "user": (EXTRACTED, "userSimulation", "extracted samples", "1 conversation"),
    "sampled": (SAMPLED, "sampled", "sampled replies", "1 conversation"),
    "lawshift": (CASE, "legalJudgement", "LawShift cases", "1 prompt"),
    "seed": (SEED, "seeds", "seeds with a correction", "1 seed"),
}


@pytest.mark.parametrize(("record", "name", "looks", "gives"), GUESSED.values(), ids=GUESSED)
def test_the_format_is_guessed_and_said(call, record, name, looks, gives):
    write_jsonl(Path("x.jsonl"), [record])
    ended = call("check", "x.jsonl")
    assert ended.code == 0, ended.out + ended.err
    assert ended.lines[0] == f"Read as {name} (detected): the first record looked like {looks}."
    assert f"1 record → {gives}" in ended.lines
    assert ended.lines[-1] == "All good."
    assert call("check", "x.jsonl", "--format", name).lines[0] == "x.jsonl"


def test_fields_that_no_reader_reads_are_named(call):
    turns = [CHAT["messages"][0], {**CHAT["messages"][1], "mood": "calm"}]
    write_jsonl(
        Path("x.jsonl"), [{**CHAT, "source": "web"}, {"messages": turns, "source": "web", "\x1b[2J": 1}]
    )
    ended = call("check", "x.jsonl")
    assert ended.code == 0
    said = "source (2), messages[].mood (1), ␛[2J (1)"
    assert (
        f"not read: {said.replace('messages[].mood (1), ␛[2J (1)', '␛[2J (1), messages[].mood (1)')}"
        in ended.lines
    )
    assert "All good." not in ended.out
    assert ended.lines[-1].startswith("Every record can be used, but these fields are not read: source (2), ")
    assert "\x1b" not in ended.out
    assert any(
        line.startswith("not read: ")
        for line in call("convert", "x.jsonl", "o.jsonl", "--to", "openai").lines
    )


LOST = {
    "details": ({"reasoning_details": [1]}, "messages[1].reasoning_details cannot be used"),
    "two-weights": ({"loss_weight": 1, "weight": 0}, "messages[1].loss_weight and messages[1].weight differ"),
    "no-weight": ({"loss_scale": 0.0}, "no assistant reply has a weight above 0"),
    "texts": ({"content": ["a", "b"]}, "messages[1].content is a list of texts"),
}


@each(("extra", "reason"), LOST.values(), ids=LOST)
def test_what_changes_what_is_learned_is_never_good(call, extra, reason):
    write_jsonl(Path("x.jsonl"), [{"messages": [CHAT["messages"][0], {**CHAT["messages"][1], **extra}]}])
    ended = call("check", "x.jsonl")
    assert (ended.code, f"x.jsonl, line 1: {reason}" in ended.out) == (2, True), ended.out


def test_unread_fields_of_every_format_are_named(call):
    for name, (record, fmt, _, _) in GUESSED.items():
        write_jsonl(Path("x.jsonl"), [{**record, "oddity": 3}])
        ended = call("check", "x.jsonl", "--format", fmt)
        assert (ended.code, "not read: oddity (1)" in ended.lines) == (0, True), (name, ended.out)
    write_jsonl(Path("x.jsonl"), [{**LINE, "oddity": 3}])
    assert "not read: oddity (1)" in call("check", "x.jsonl", "--name", "Paimon").lines
    Path("films").mkdir()
    Path("films/ratings.csv").write_text("userId,movieId,rating,timestamp,mood\n7,1,4.0,3,calm\n7,1,3.0,4,\n")
    Path("films/movies.csv").write_text("movieId,title,genres,year\n1,The Night Ferry,Drama,1998\n")
    ended = call("check", "films")
    assert (
        "not read: movies.csv: year (2), task.task_behavior_collections[].type (2), ratings.csv: mood (1)"
        in (ended.lines)
    )


def test_a_character_needs_a_name(call):
    write_jsonl(Path("x.jsonl"), [LINE, {**LINE, "speaker": "Zhongli"}])
    ended = call("check", "x.jsonl")
    assert (ended.code, ended.err) == (
        2,
        "tunesmith: The format character needs the character's name: --name NAME.\n",
    )
    ended = call("check", "x.jsonl", "--name", "Paimon")
    assert ended.code == 0
    assert "2 records → 1 conversation" in ended.lines
    assert "1 left out: another speaker" in ended.lines
    assert call("check", "x.jsonl", "--name", "Nobody").lines[-1] == "There are no usable records."
    both = call("check", "x.jsonl", "--name", "Paimon", "--set", "speakers=[Zhongli]")
    assert "2 records → 2 conversations" in both.lines


def test_shapes_are_counted_and_bad_records_named(call):
    write_jsonl(Path("x.jsonl"), [CHAT, {"conversations": TURNS}, CHAT, "{", {"messages": []}, {"a": 1}])
    ended = call("check", "x.jsonl")
    assert ended.code == 2
    assert "6 records → 3 conversations" in ended.lines
    assert "OpenAI messages: 3" in ended.lines
    assert "ShareGPT conversations: 1" in ended.lines
    assert "records of unknown shape: 1" in ended.lines
    assert "3 bad records:" in ended.lines
    places = [line for line in ended.lines if line.startswith("x.jsonl, line")]
    assert [place.split(":")[0] for place in places] == [f"x.jsonl, line {n}" for n in (4, 5, 6)]
    assert ended.lines[-1] == "Fix them, or have the job skip them with maxBadRecords: 3."


@pytest.mark.parametrize("count", [20, 21, 60])
def test_bad_records_are_shown_up_to_twenty(call, count):
    write_jsonl(Path("x.jsonl"), [CHAT, *["{"] * count])
    ended = call("check", "x.jsonl")
    assert len([line for line in ended.lines if line.startswith("x.jsonl, line")]) == 20
    assert (f"… and {count - 20} more" in ended.lines) == (count > 20)


def test_a_broken_list_is_not_to_be_allowed(call):
    Path("x.json").write_text(json.dumps([CHAT, CHAT])[:-5])
    ended = call("check", "x.json")
    assert ended.code == 2
    assert "maxBadRecords does not cover" in ended.lines[-1]


def test_files_of_a_folder_that_are_left_out_are_named(call):
    write_jsonl(Path("d/a.jsonl"), [CHAT])
    write_jsonl(Path("d/sub/b.jsonl"), [CHAT])
    for name in (".hidden.jsonl", "_SUCCESS", "notes.txt", "pic.png"):
        Path("d", name).write_text("x")
    ended = call("check", "d")
    assert ended.code == 0
    assert "2 records → 2 conversations" in ended.lines
    files = {line.split(": ")[1] for line in ended.lines if line.startswith("file left out: ")}
    assert files == {".hidden.jsonl", "_SUCCESS", "notes.txt", "pic.png"}
    assert "is skipped" not in ended.err


def test_plain_text_is_recognised(call):
    Path("x.txt").write_text("one\n\ntwo\n")
    ended = call("check", "x.txt")
    assert ended.code == 0
    assert "2 records → 2 documents" in ended.lines


def test_addresses_and_paths(call, tmp_path, monkeypatch):
    write_jsonl(Path("d/a.jsonl"), [CHAT])
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("d", "d/a.jsonl", "./d/../d", "~/d", tmp_path / "d", f"file://{tmp_path}/d/a.jsonl"):
        assert call("check", path).lines[-1] == "All good.", path


def test_articles_are_looked_up(call):
    write_jsonl(Path("x.jsonl"), [CASE, {**CASE, "relevant_articles": ["999"]}])
    Path("articles.json").write_text(json.dumps({"264": "盗窃公私财物……"}))
    assert call("check", "x.jsonl").code == 0
    ended = call("check", "x.jsonl", "--set", "articlesUri=articles.json")
    assert ended.code == 2
    assert "x.jsonl, line 2: relevant_articles names 999, which is not in the file of articles" in ended.lines
    Path("articles.json").write_text("{oops")
    ended = call("check", "x.jsonl", "--set", "articlesUri=articles.json")
    assert (ended.code, "articles.json cannot be used: articles.json" in ended.err) == (2, True)


def test_sampled_records_without_prompt_need_the_articles(call):
    write_jsonl(Path("x.jsonl"), [{**SAMPLED, "prompt": None}])
    assert "x.jsonl, line 1: prompt is missing; set sampled.articlesUri" in call("check", "x.jsonl").out
    Path("articles.json").write_text(json.dumps({"264": "盗窃公私财物……"}))
    assert call("check", "x.jsonl", "--set", "articlesUri=articles.json").code == 0


def test_files_in_another_encoding(call):
    Path("novel.txt").write_bytes("第一章\n\n那年冬天，\n祖母死了。\n".encode("gb18030"))
    ended = call("check", "novel.txt")
    assert (ended.code, "it looks like gb18030: set encoding: gb18030" in ended.out) == (2, True)
    for join, documents in (("line", 3), ("paragraph", 2), ("file", 1)):
        ended = call("check", "novel.txt", "--encoding", "gb18030", "--set", f"join={join}")
        records = (
            "1 record → 1 document" if documents == 1 else f"{documents} records → {documents} documents"
        )
        assert (ended.code, records in ended.lines) == (0, True), ended.out
    assert (
        "--encoding gbk: choose one of utf-8, utf-16, gb18030,"
        in call("check", "novel.txt", "--encoding", "gbk").err
    )
    Path("chat.jsonl").write_bytes(
        (json.dumps(CHAT | {"note": "祖母死了"}, ensure_ascii=False)).encode("gb18030")
    )
    assert call("convert", "chat.jsonl", "out.jsonl", "--to", "openai", "--encoding", "gb18030").code == 0
    Path("case.jsonl").write_bytes(json.dumps(CASE, ensure_ascii=False).encode("gb18030"))
    Path("articles.json").write_bytes(
        json.dumps({"264": "盗窃公私财物"}, ensure_ascii=False).encode("gb18030")
    )
    options = ("--encoding", "gb18030", "--set", "articlesUri=articles.json")
    assert call("check", "case.jsonl", *options).code == 0


def test_options_of_the_format(call):
    write_jsonl(Path("x.jsonl"), [CHAT] * 3)
    ended = call("check", "x.jsonl", "--set", "limit=2")
    assert "2 records → 2 conversations" in ended.lines
    assert "only 2 records were read: limit" in ended.lines


WRONG = {
    "format": (["--format", "parquet"], "--format parquet: choose one of chat, instruction, text,"),
    "option": (["--set", "expand=true"], "--set expand: the format chat has no such option."),
    "nested": (["--set", "a=1", "--set", "a.b=2"], "the format chat has no such option."),
    "value": (["--set", "trainOn=some"], "--set trainOn: Input should be 'lastAssistant' or 'allAssistant'."),
    "name": (["--name", "Ann"], "--name applies only to --format character."),
    "length": (["--max-length", "100"], "--max-length needs --model"),
    "model": (["--format", "seeds", "--model", "m"], "--model is only for formats for training"),
    "no-model": (["--model", "nowhere"], "nowhere: there is no such folder."),
}


@pytest.mark.engine
@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options(call, options, message):
    write_jsonl(Path("x.jsonl"), [CHAT])
    ended = call("check", "x.jsonl", *options)
    assert ended.code == 2
    assert message in ended.err


def test_records_no_format_reads(call):
    write_jsonl(Path("x.jsonl"), [{"chosen": "a", "rejected": "b"}])
    ended = call("check", "x.jsonl")
    assert ended.code == 2
    assert "no format reads records like the first one (chosen, rejected)" in ended.err


def test_tokens_lengths_and_what_does_not_fit(call, tiny_model):
    long = {"messages": [{"role": "user", "content": "old " * 300}, *CHAT["messages"][1:], *CHAT["messages"]]}
    reply = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "word " * 100}]}
    write_jsonl(Path("x.jsonl"), [*[CHAT] * 5, long, reply])
    ended = call("check", "x.jsonl", "--model", tiny_model, "--max-length", "128")
    assert ended.code == 2
    assert "2 samples over 128 tokens, whose context is truncated" in ended.lines
    assert any(line.startswith("x.jsonl, line 7: ") and "128" in line for line in ended.lines)
    longest = max(int(n.replace(",", "")) for n in re.findall(r"lengths: [\d,]+ to ([\d,]+)", ended.out))
    assert longest > 300
    ended = call("check", "x.jsonl", "--model", tiny_model, "--max-length", "4000")
    assert ended.code == 0
    assert "every sample fits into 4,000 tokens" in ended.lines
    assert any(re.fullmatch(r"7 samples, [\d,]+ tokens, \d+% of them labels", line) for line in ended.lines)
    ended = call("check", "x.jsonl", "--model", tiny_model)  # the model's own positions
    assert "every sample fits into 512 tokens" in ended.lines
    reply["messages"][1]["content"] = "word " * 600
    write_jsonl(Path("x.jsonl"), [reply])
    ended = call("check", "x.jsonl", "--model", tiny_model, "--max-length", "4000")
    assert ended.code == 2
    assert any("longer than the model's 512 positions" in line for line in ended.lines)


def test_data_does_not_steer_the_terminal(call):
    write_jsonl(Path("x.jsonl"), [CHAT, {"messages": [{"role": "\x1b[2J", "content": "a"}]}])
    ended = call("check", "x.jsonl")
    assert "␛[2J" in ended.out
    assert "\x1b" not in ended.out


# --- convert ----------------------------------------------------------------------------------------------

UNPACK = {
    "o.jsonl": lambda data: data,
    "o.json": lambda data: data,
    "o.jsonl.gz": gzip.decompress,
    "o.json.gz": gzip.decompress,
    "o.jsonl.zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    "o.json.zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("name", UNPACK)
def test_every_form_of_file(call, name):
    write_jsonl(Path("x.jsonl"), [ALPACA, {**ALPACA, "output": "中文"}])
    ended = call("convert", "x.jsonl", name, "--to", "openai")
    assert (ended.code, ended.lines[-1]) == (0, f"{name}: 2 records written."), ended.err
    text = UNPACK[name](Path(name).read_bytes()).decode()
    read = json.loads(text) if ".json" in Path(name).suffixes else [json.loads(t) for t in text.splitlines()]
    assert [record["messages"][1]["content"] for record in read] == ["a", "中文"]
    assert "中文" in text
    assert call("check", name).lines[-1] == "All good."
    assert names() == sorted(["x.jsonl", name])


@pytest.mark.parametrize("target", ["sharegpt", "alpaca"])
def test_there_and_back(call, target):
    records = [{"messages": record["messages"]} for record in chat_records(9)]
    write_jsonl(Path("x.jsonl"), records)
    assert call("convert", "x.jsonl", "there.json.gz", "--to", target).code == 0
    assert call("convert", "there.json.gz", "back.jsonl", "--to", "openai").code == 0
    assert [json.loads(line) for line in Path("back.jsonl").read_text().splitlines()] == records


def test_a_tree_gives_a_record_a_path(call):
    write_jsonl(Path("x.jsonl"), [TREE])
    assert "o.jsonl: 2 records written." in call("convert", "x.jsonl", "o.jsonl", "--to", "alpaca").lines
    assert [json.loads(line)["output"] for line in Path("o.jsonl").read_text().splitlines()] == ["a", "b"]


def test_what_has_no_room_is_refused_by_place_and_nothing_is_written(call):
    tool = {"messages": [*CHAT["messages"], {"role": "tool", "content": "t"}, *CHAT["messages"][1:]]}
    write_jsonl(Path("x.jsonl"), [CHAT, tool, {**LINE}])
    ended = call("convert", "x.jsonl", "o.jsonl", "--to", "alpaca")
    assert ended.code == 2
    assert any(line.startswith("x.jsonl, line 2: turn 3 (tool) is where Alpaca has") for line in ended.lines)
    assert ended.lines[-1] == "Nothing was written: 2 bad records, 0 allowed by --max-bad-records."
    assert names() == ["x.jsonl"]
    ended = call("convert", "x.jsonl", "o.jsonl", "--to", "alpaca", "--max-bad-records", "2")
    assert ended.code == 0
    assert "2 bad records:" in ended.lines
    assert Path("o.jsonl").read_text().count("\n") == 1


def test_a_file_cut_short_is_never_allowed(call):
    Path("x.json").write_text(json.dumps([CHAT] * 3)[:-9])
    ended = call("convert", "x.json", "o.jsonl", "--to", "openai", "--max-bad-records", "100")
    assert ended.code == 2
    assert "Nothing was written: a file that could not be read to its end" in ended.lines[-1]
    assert names() == ["x.json"]


def test_nothing_to_write(call):
    write_jsonl(Path("x.jsonl"), [LINE])
    ended = call("convert", "x.jsonl", "o.jsonl", "--to", "openai", "--from", "character", "--name", "Ann")
    assert (ended.code, ended.lines[-1]) == (2, "Nothing was written: there is no conversation to write.")
    assert "1 left out: another speaker" in ended.lines


def test_a_weight_is_kept(call):
    write_jsonl(Path("x.json"), [json.dumps([{**SAMPLED, "num_correct_for_this_sample": 2}] * 2)])
    assert call("convert", "x.json", "o.jsonl", "--to", "openai").code == 0
    record = json.loads(Path("o.jsonl").read_text().splitlines()[0])
    assert record["messages"][-1]["loss_weight"] == 0.5


def test_what_is_there_stays_without_force(call):
    write_jsonl(Path("x.jsonl"), [CHAT])
    Path("o.jsonl").write_text("mine")
    ended = call("convert", "x.jsonl", "o.jsonl", "--to", "openai")
    assert (ended.code, ended.err) == (2, "tunesmith: o.jsonl already exists; --force replaces it.\n")
    assert Path("o.jsonl").read_text() == "mine"
    assert call("convert", "x.jsonl", "o.jsonl", "--to", "openai", "--force").code == 0
    assert call("convert", "o.jsonl", "o.jsonl", "--to", "sharegpt", "--force").code == 0
    assert "conversations" in Path("o.jsonl").read_text()


def test_what_appears_meanwhile_stays(call, monkeypatch):
    write_jsonl(Path("x.jsonl"), [CHAT])
    publish = data_convert._publish
    monkeypatch.setattr(
        data_convert, "_publish", lambda *a: (Path("o.jsonl").write_text("mine"), publish(*a))
    )
    assert call("convert", "x.jsonl", "o.jsonl", "--to", "openai").code == 2
    assert Path("o.jsonl").read_text() == "mine"
    assert names() == ["o.jsonl", "x.jsonl"]


def test_a_stop_leaves_nothing_that_looks_finished(call, monkeypatch):
    write_jsonl(Path("x.jsonl"), [CHAT] * 5)
    calls = iter([None, None])

    def interrupted(*arguments):
        if next(calls, "stop") == "stop":
            assert not Path("o.jsonl").exists()
            raise KeyboardInterrupt
        return convert(*arguments)

    convert = data_convert._convert
    monkeypatch.setattr(data_convert, "_convert", interrupted)
    assert call("convert", "x.jsonl", "o.jsonl", "--to", "openai").code == 130
    assert names() == ["x.jsonl"]


WRONG_CONVERT = {
    "target": (["x.jsonl", "o.jsonl", "--to", "csv"], "--to csv: choose one of openai, sharegpt, alpaca."),
    "ending": (["x.jsonl", "o.csv", "--to", "openai"], "o.csv: name it .jsonl or .json"),
    "s3": (["x.jsonl", "s3://b/o.jsonl", "--to", "openai"], "write to a file here"),
    "folder": (["x.jsonl", "d.json", "--to", "openai"], "d.json is a folder"),
    "text": (["t.txt", "o.jsonl", "--to", "openai"], "--from text: this format has no conversations"),
    "seeds": (["x.jsonl", "o.jsonl", "--to", "openai", "--from", "seeds"], "has no conversations"),
    "nothing": (["nowhere", "o.jsonl", "--to", "openai"], "There is no file and no folder"),
    "under-a-file": (["x.jsonl", "x.jsonl/o.jsonl", "--to", "openai"], "x.jsonl"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG_CONVERT.values(), ids=WRONG_CONVERT)
def test_wrong_calls(call, arguments, message):
    write_jsonl(Path("x.jsonl"), [CHAT])
    Path("t.txt").write_text("hello\n")
    Path("d.json").mkdir()
    ended = call("convert", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert names() == ["d.json", "t.txt", "x.jsonl"]


# --- docs -------------------------------------------------------------------------------------------------


def documented():
    section = DOCS.read_text().split("## Checking and converting data")[1].split("\n## ")[0]
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).replace("\\\n", " ")
    return [line.split(" #")[0] for line in blocks.splitlines() if line.startswith("tunesmith data ")]


@pytest.mark.parametrize("line", documented())
def test_the_commands_of_the_page_work(call, line, tiny_model):
    write_jsonl(Path("train.jsonl"), chat_records(5))
    write_jsonl(Path("trees.jsonl"), [TREE])
    write_jsonl(Path("users.jsonl"), [EXTRACTED])
    write_jsonl(Path("lines/paimon.jsonl"), [LINE])
    Path("alpaca.json").write_text(json.dumps([ALPACA]))
    Path("my-model").symlink_to(tiny_model)
    Path("novel.txt").write_bytes("第一章\n\n那年冬天，\n祖母死了。\n".encode("gb18030"))
    ended = call(*shlex.split(line)[2:])
    assert ended.code == 0, ended.out + ended.err


def test_fields_of_other_names(call):
    write_jsonl(Path("x.jsonl"), [{"question": "q", "reply": {"text": "a", "model": "m"}}])
    columns = ["--set", "columns.instruction=question", "--set", "columns.output=reply.text"]
    ended = call("check", "x.jsonl", *columns)
    assert ended.code == 0, ended.err
    assert "Read as instruction (detected)" in ended.out
    assert "reply.model (1)" in ended.out
    ended = call("convert", "x.jsonl", "y.jsonl", "--to", "openai", *columns)
    assert ended.code == 0, ended.err
    assert json.loads(Path("y.jsonl").read_text())["messages"][1]["content"] == "a"
    ended = call("check", "x.jsonl", "--format", "instruction", *columns[:2], "--set", "columns.output=none")
    assert (ended.code, "No record has 'none' (columns.output)" in ended.err) == (2, True)
    ended = call("check", "x.jsonl", "--format", "chat", "--set", "columns.output=question")
    assert (ended.code, "--set columns: " in ended.err) == (2, True)
    ended = call("check", "x.jsonl", "--set", "split=train")
    assert (ended.code, "--set split: this is for data sets on the hub" in ended.err) == (2, True)

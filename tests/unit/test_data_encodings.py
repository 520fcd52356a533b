"""Files that are not UTF-8: read as `encoding` says, else named by what they look like."""

import gzip
import json

import pytest
from tests.unit.test_data_records import Memory, shown, values

from tunesmith.api.datasets import DatasetSpec, PromptsSpec, ValidationSpec
from tunesmith.api.dialogue import SeedsSpec
from tunesmith.artifacts.store import Entry, StorageOptions
from tunesmith.data.files.records import read_records
from tunesmith.data.prompts.articles import read_articles
from tunesmith.data.read import Item, Reader
from tunesmith.dialogue.seeds import prepare_seeds

CHINESE = "那年冬天，祖母死了，父亲的差使也交卸了，正是祸不单行的日子。"
TEXTS = {
    "gb18030": CHINESE + "𠮷",
    "big5": "那年冬天，祖母死了，父親的差使也交卸了，正是禍不單行的日子。",
    "shift_jis": "吾輩は猫である。名前はまだ無い。①髙橋さん",
    "euc_jp": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "euc_kr": "오늘은 날씨가 좋아서 공원에 산책하러 갔습니다. 그는 문제없다고 말했다.",
    "cp1252": "Überall „Straße“, schön — où ça? Très bien, naïveté.",
    "utf-16": CHINESE,
}
PYTHON = {"shift_jis": "cp932"}


def written(text, encoding):
    return text.encode(PYTHON.get(encoding, encoding))


def containers(text, encoding):
    """Each container with a record of this text, and one more."""
    rows = [{"text": text}, {"text": "two"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files = {
        "x.jsonl": lines,
        "x.json": json.dumps(rows, ensure_ascii=False),
        "x.csv": f'text\r\n"{text}"\r\ntwo\r\n',
        "x.txt": f"{text}\ntwo\n",
    }
    found = {name: written(content, encoding) for name, content in files.items()}
    return rows, found | {"y.jsonl.gz": gzip.compress(found["x.jsonl"])}


def read(name, data, **options):
    entries = [Entry(name, len(data))]
    return list(read_records(Memory({name: data}), entries, plain_text=name.endswith(".txt"), **options))


def test_every_container_in_every_encoding():
    wrong = []
    for encoding, text in TEXTS.items():
        rows, files = containers(text, encoding)
        for name, data in files.items():
            if (found := shown(read(name, data, encoding=encoding))) != [json.dumps(row) for row in rows]:
                wrong.append((encoding, name, found))
    assert wrong == []


def test_a_file_that_is_not_utf_8_says_what_it_looks_like():
    wrong = []
    for encoding, text in TEXTS.items():
        for name, data in containers(text, encoding)[1].items():
            expected = f"!: the file is not UTF-8; it looks like {encoding}: set encoding: {encoding}, or "
            expected += "save it as UTF-8"
            if (found := shown(read(name, data))) != [expected]:
                wrong.append((encoding, name, found))
    assert wrong == []


def test_short_chinese_is_gb18030():
    for text in ("你好", "我是谁", "祖母，父亲"):
        assert "looks like gb18030" in shown(read("x.txt", text.encode("gbk")))[0], text


def test_a_broken_byte_in_utf_8_is_no_other_encoding():
    lines = f"{CHINESE}\nbro\xff\n{CHINESE}\n".encode().replace("ÿ".encode(), b"\xff")
    found = shown(read("x.txt", lines))
    assert [line.partition(":")[0] for line in found[1:2]] == ["line 2"]
    assert len(found) == 3
    assert shown(read("x.jsonl", b'{"a": "\xff"}\n{"a": 1}\n'))[1] == '{"a": 1}'


def test_a_file_that_is_utf_8_all_the_same_is_read_as_that():
    for encoding in TEXTS:
        assert values(read("x.txt", f"{CHINESE}\n".encode(), encoding=encoding)) == [{"text": CHINESE}], (
            encoding
        )


def test_a_wrong_byte_is_named_with_its_line():
    data = b"one\ntwo\n" + CHINESE.encode("gb18030") + b"\xff\n"
    assert shown(read("x.txt", data, encoding="gb18030"))[-1] == (
        "!line 3: byte 0xff is not gb18030; set encoding to the file's"
    )


def test_a_character_cut_by_a_chunk_is_whole(monkeypatch):
    monkeypatch.setattr("tunesmith.data.files.streams.CHUNK_BYTES", 7)
    for encoding, text in TEXTS.items():
        data = written(f"{text}\ntwo", encoding)
        assert values(read("x.txt", data, encoding=encoding)) == [{"text": text}, {"text": "two"}], encoding


def test_parquet_has_an_encoding_of_its_own(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"text": [CHINESE]}), tmp_path / "x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    assert values(read("x.parquet", data, encoding="gb18030")) == [{"text": CHINESE}]


def test_every_input_of_a_job_takes_it(tmp_path):
    path = tmp_path / "x.jsonl"
    line = {"instruction": CHINESE, "output": "好", "correction": "好的"}
    path.write_bytes((json.dumps(line, ensure_ascii=False) + "\n").encode("gb18030"))
    told = {"uri": f"file://{path}", "encoding": "gb18030"}
    for spec in (DatasetSpec, ValidationSpec):
        dataset = spec.model_validate({**told, "instruction": {}})
        (item,) = Reader(Memory({"x": path.read_bytes()}), [Entry("x", 1)], dataset).items()
        assert isinstance(item, Item)
        assert item.content.messages[0].content == CHINESE
    assert PromptsSpec.model_validate({**told, "instruction": {}}).encoding == "gb18030"
    seeds = prepare_seeds(SeedsSpec.model_validate(told), StorageOptions(), tmp_path / "seeds")
    assert len(seeds) == 1
    articles = tmp_path / "articles.json"
    articles.write_bytes(json.dumps({"264": CHINESE}, ensure_ascii=False).encode("gb18030"))
    assert read_articles(f"file://{articles}", StorageOptions(), "gb18030") == {"264": CHINESE}

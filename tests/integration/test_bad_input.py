"""Data that is broken in every usual way, through the real command: a clear error, exit code 2, no traceback.

The jobs' model has no weights: whoever loaded it before reading the data would complain of that instead.
"""

from __future__ import annotations

import gzip
import io
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import CODE, Ended, environment, finetune, run_cli, write_manifest

from tunesmith.cli import main


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global pyarrow
    import pyarrow
    import pyarrow.parquet


GOOD = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The river."}]}
LINE = json.dumps(GOOD).encode() + b"\n"
QUOTES = b'{"messages": [{"role": "user", "content": "say "hi""}]}\n'


def long_line() -> bytes:
    text = "word " * 10_000_000
    return json.dumps({"messages": [*GOOD["messages"][:1], {"role": "assistant", "content": text}]}).encode()


def packed() -> bytes:
    return gzip.compress(b"".join(json.dumps({**GOOD, "id": n * n}).encode() + b"\n" for n in range(5000)))


def parquet() -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD] * 50), file)
    return file.getvalue()


# name of the file, its bytes, and what the error says; None makes an empty folder.
BAD: dict[str, tuple[str, Callable[[], bytes] | None, str]] = {
    "quotes-in-lines": (
        "x.jsonl",
        lambda: LINE + QUOTES + LINE,
        "x.jsonl, line 2: invalid JSON at column 49: expecting ',' delimiter; "
        r"write a double quote inside text as \"",
    ),
    "quotes-in-a-list": (
        "x.json",
        lambda: b"[\n" + LINE + b",\n" + QUOTES + b"]",
        "x.json, index 1: invalid JSON at line 4, column 49: expecting ',' delimiter",
    ),
    "nul-bytes": (
        "x.jsonl",
        lambda: LINE + b"\0" * 4096 + b"\n",
        "x.jsonl, line 2: invalid JSON at column 1",
    ),
    "nul-in-text": (
        "x.jsonl",
        lambda: LINE.replace(b"Who", b"W\0o"),
        "x.jsonl, line 1: invalid JSON at column 45: invalid control character; there is a NUL byte",
    ),
    "only-nul": ("x.jsonl", lambda: b"\0" * 4096, "there is a NUL byte"),
    "long-line": (
        "x.jsonl",
        lambda: LINE + long_line() + b"\n" + LINE,
        "x.jsonl, line 2: the line is longer than 32 MiB",
    ),
    "bad-utf8": (
        "x.jsonl",
        lambda: LINE + LINE.replace(b"river", b"ri\xffer"),
        "x.jsonl, line 2: not UTF-8: byte 0xff at byte 92 of the line",
    ),
    "utf16": (
        "x.jsonl",
        lambda: LINE.decode().encode("utf-16"),
        "x.jsonl: the file is not UTF-8; it looks like utf-16: set encoding: utf-16, or save it as UTF-8",
    ),
    "no-messages": ("x.jsonl", lambda: LINE + b'{"chat": 1}\n', "x.jsonl, line 2: no conversation was found"),
    "no-role": (
        "x.jsonl",
        lambda: LINE + LINE.replace(b'"role": "user", ', b""),
        "x.jsonl, line 2: messages[0].role is missing",
    ),
    "no-content": (
        "x.jsonl",
        lambda: LINE + LINE.replace(b', "content": "Who?"', b""),
        "x.jsonl, line 2: messages[0].content is missing",
    ),
    "no-reply": (
        "x.jsonl",
        lambda: LINE + b'{"messages": [{"role": "user", "content": "Who?"}]}\n',
        "x.jsonl, line 2: there is no assistant reply",
    ),
    "empty-file": ("x.jsonl", lambda: b"", "x.jsonl: the file is empty"),
    "only-white-space": ("x.json", lambda: b" \n\n\t", "x.json: the file is empty"),
    "empty-list": ("x.json", lambda: b"[]", "x.json: the file has no records"),
    "empty-folder": ("x", None, "There is no file and no folder with files at "),
    "gzip-cut-short": (
        "x.jsonl.gz",
        lambda: packed()[:-2000],
        "the gzip data is truncated: the file ends early; upload the file again",
    ),
    "gzip-without-its-end": ("x.jsonl.gz", lambda: packed()[:-4], "the gzip data is truncated"),
    "list-cut-short": (
        "x.json",
        lambda: json.dumps([GOOD] * 3).encode()[:-30],
        "x.json, index 2: invalid JSON at line 1, column",
    ),
    "parquet-cut-short": (
        "x.parquet",
        lambda: parquet()[:-500],
        "x.parquet: the Parquet data is truncated: the file ends early; upload the file again",
    ),
    "parquet-damaged": (
        "x.parquet",
        lambda: parquet()[:100] + b"\x07" * 300 + parquet()[400:],
        "the Parquet data is damaged",
    ),
    "parquet-by-name-only": (
        "x.parquet",
        lambda: LINE,
        "x.parquet: the first bytes are not those of a Parquet file",
    ),
    "zip": ("x.zip", lambda: b"PK\3\4", "x.zip: .zip files cannot be read; convert the file to .jsonl"),
}
ACCEPTED = {
    "bom": ("x.jsonl", b"\xef\xbb\xbf" + LINE * 2),
    "bom-before-a-list": ("x.json", b"\xef\xbb\xbf" + json.dumps([GOOD] * 2).encode()),
    "lines-named-json": ("x.json", LINE * 2),
    "lines-of-windows": ("x.jsonl", LINE.replace(b"\n", b"\r\n") * 2),
    "packed-by-content": ("x.jsonl", gzip.compress(LINE * 2)),
}


def put(folder: Path, name: str, data: bytes | None) -> Path:
    path = folder / "data" / name
    path.parent.mkdir(parents=True)
    if data is None:
        path.mkdir()
    else:
        path.write_bytes(data)
    return path


def assert_clear(ended: Ended, message: str) -> None:
    assert ended.code == 2, ended.text
    assert ended.text.count(message) == 1, ended.text
    assert "Traceback" not in ended.text
    assert "safetensors" not in ended.text


@pytest.fixture(scope="session")
def no_weights(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer and configuration of a model, and nothing to load."""
    folder = tmp_path_factory.mktemp("none") / "model"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


Command = Callable[..., Ended]


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command's own entry point in this process: starting one for each row takes minutes."""

    def call(*arguments: str | Path) -> Ended:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["tunesmith", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        said = capfd.readouterr()
        return Ended(code if isinstance(code, int) else 0, said.out + said.err)

    return call


@pytest.mark.parametrize(("name", "data", "message"), BAD.values(), ids=BAD)
def test_check_says_what_is_wrong(
    tmp_path: Path, called: Command, name: str, data: Callable[[], bytes] | None, message: str
) -> None:
    path = put(tmp_path, name, data() if data else None)
    assert_clear(called("data", "check", path.relative_to(tmp_path)), message)


def test_check_as_a_process(tmp_path: Path) -> None:
    name, data, message = BAD["quotes-in-lines"]
    path = put(tmp_path, name, data() if data else None)
    assert_clear(run_cli("data", "check", path.relative_to(tmp_path), folder=tmp_path, warm=False), message)


@pytest.mark.parametrize(("name", "data"), ACCEPTED.values(), ids=ACCEPTED)
def test_check_accepts(tmp_path: Path, called: Command, name: str, data: bytes) -> None:
    ended = called("data", "check", put(tmp_path, name, data))
    assert ended.code == 0, ended.text
    assert "2 records → 2 conversations" in ended.text


# Preview and run read with the same readers; what differs is how errors reach the user.
PREVIEWED = ["quotes-in-lines", "empty-folder", "gzip-cut-short", "parquet-cut-short"]


@pytest.mark.parametrize("case", PREVIEWED)
def test_preview_says_what_is_wrong(tmp_path: Path, called: Command, no_weights: Path, case: str) -> None:
    name, data, message = BAD[case]
    path = put(tmp_path, name, data() if data else None)
    job = write_manifest(tmp_path, finetune("bad", model=no_weights, data=path, output=tmp_path / "out"))
    assert_clear(called("preview", "-f", job), message)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["quotes-in-lines"])
def test_run_stops_before_it_loads_a_model(tmp_path: Path, no_weights: Path, case: str) -> None:
    name, data, message = BAD[case]
    path = put(tmp_path, name, data() if data else None)
    job = write_manifest(tmp_path, finetune("bad", model=no_weights, data=path, output=tmp_path / "out"))
    ended = run_cli("run", "-f", job, folder=tmp_path)
    assert_clear(ended, message)
    assert not (tmp_path / "out" / "manifest.json").exists()


def peak_mib(folder: Path, path: Path) -> int:
    """Memory at its highest while the command reads a file."""
    code = (
        f"import resource, atexit\natexit.register(lambda: print(resource.getrusage({resource.RUSAGE_SELF})"
        + (f".ru_maxrss, file=open('peak', 'w')))\n{CODE}")
    )
    subprocess.run(
        [sys.executable, "-c", code, "data", "check", path], cwd=folder, env=environment(), check=False,
        capture_output=True,
    )  # fmt: skip
    return int((folder / "peak").read_text()) // 1024


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path) -> None:
    small, large, long = tmp_path / "small.jsonl", tmp_path / "large.jsonl", tmp_path / "long.jsonl"
    small.write_bytes(LINE * 100)
    with large.open("wb") as file:
        for _ in range(100):
            file.write(LINE.replace(b"river", b"river " * 200) * 800)
    long.write_bytes(long_line())
    least = peak_mib(tmp_path, small)
    assert peak_mib(tmp_path, large) < least + 25
    assert peak_mib(tmp_path, long) < least + 75
    assert large.stat().st_size > 90_000_000

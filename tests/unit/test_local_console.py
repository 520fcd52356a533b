"""Texts of other origin on a terminal and in logs: they are shown, and steer nothing."""

from __future__ import annotations

import io
import logging
import re

from full_manifests import FULL, text_fields
from good_manifests import changed
from hostile import STEERING
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tunesmith.api.manifest import parse_documents
from tunesmith.local.console import Console
from tunesmith.local.quiet import _OwnLines
from tunesmith.plan.build import build, output_uris
from tunesmith.plan.show import as_yaml
from tunesmith.text import VisibleFormatter

EVIL = f"name{STEERING}\x1b]0;title\x07"
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what rich itself sends


def steers(text):
    return set(STEERING + "\x07") & set(_COLOURS.sub("", text).replace("\r", ""))


def test_nothing_that_is_printed_steers_the_terminal():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    table = Table(EVIL, title=EVIL)
    table.add_row(Text(EVIL, style="bold"))
    for each in (EVIL, Text.assemble((EVIL, "bold"), EVIL), table, Panel(table, title=EVIL), {EVIL: [EVIL]}):
        console.print(each)
        console.print(each, soft_wrap=True)
    with Progress(console=console) as bar:
        bar.update(bar.add_task(EVIL), advance=1, description=EVIL)
    assert "name" in file.getvalue()
    assert steers(file.getvalue()) == set()


def test_no_line_of_a_log_steers_the_terminal(capsys):
    record = logging.LogRecord("tunesmith", logging.WARNING, "x", 1, "read %s", (EVIL,), None)
    _OwnLines().emit(record)
    lines = VisibleFormatter("%(levelname)s %(message)s").format(record) + capsys.readouterr().err
    assert lines.count("name") == 2
    assert not set(STEERING) & set(lines)


def test_no_text_of_a_manifest_steers_where_it_is_rendered():
    tried = 0
    for document in FULL.values():
        for path in text_fields(document):
            jobs, problems = parse_documents([changed(document, {path: EVIL})], "job.yaml")
            if not problems:
                plan = build(jobs[0], output_uris(jobs), attempt=1)
                assert not set(STEERING) & set(as_yaml([plan.config_map, plan.child])), path
                tried += 1
    assert tried > 20

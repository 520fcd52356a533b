"""What README and docs tell people to type exists: commands, options, make targets, manifests, links."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import typer.main
from tests.cases import each
from tests.manifests import parse_text

from tunesmith.cli import app
from tunesmith.local.overrides import parse_override

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = typer.main.get_command(app).commands


def name(page):
    return page.relative_to(ROOT).with_suffix("").as_posix()


def blocks(page, *languages):
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def command_lines(page):
    text = "\n".join(blocks(page, "sh", "bash", "console")).replace("\\\n", " ")
    text += "\n" + "\n".join(re.findall(r"`((?:tunesmith|make) [^`]+)`", page.read_text()))
    return [line.strip().removeprefix("$ ") for line in text.splitlines()]


def tunesmith_calls(page):
    for line in command_lines(page):
        for part in re.split(r"&&|\|", line.split(" #")[0]):
            if part.strip().startswith("tunesmith "):
                yield shlex.split(part)


@each("page", PAGES, ids=name)
def test_tunesmith_commands_and_options_exist(page):
    for words in tunesmith_calls(page):
        assert words[1] in COMMANDS or words[1].startswith("-"), words
        if words[1] in COMMANDS:
            command, rest = command_of(words)
            known = {option for param in command.params for option in param.opts} | {"--help"}
            unknown = [w for w in rest if w.startswith("-") and w != "-" and w.split("=")[0] not in known]
            assert not unknown, words


def command_of(words):
    """The command that is called, the last of a group's, and the words after its name."""
    command, rest = COMMANDS[words[1]], words[2:]
    while hasattr(command, "commands"):
        assert rest, words
        assert rest[0] in command.commands, words
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


@each("page", PAGES, ids=name)
def test_files_of_the_repository_that_are_named_exist(page):
    named = re.findall(r"(?<![\w./-])(?:examples|docs|charts|crds)/[\w./-]*", "\n".join(command_lines(page)))
    assert [path for path in named if not (ROOT / path).exists()] == []


@each("page", PAGES, ids=name)
def test_overrides_and_seeds_can_be_read(page):
    for words in tunesmith_calls(page):
        for option, text in pairwise(words):
            if option == "--set" and words[1] != "data":
                parse_override(text)
            elif option == "--seed":
                assert re.fullmatch(r"s3://[^=]+=[^=]+", text), text


@each("page", PAGES, ids=name)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [line.split()[1] for line in command_lines(page) if line.startswith("make ")]
    assert [name for name in named if name not in targets] == []


@each("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_shows_commands_and_a_right_manifest():
    readme = PAGES[0]
    assert len(list(tunesmith_calls(readme))) >= 3
    jobs, problems = parse_text("---\n".join(blocks(readme, "yaml")), "README.md")
    assert [str(problem) for problem in problems] == []
    assert [job.name for job in jobs] == ["quickstart"]

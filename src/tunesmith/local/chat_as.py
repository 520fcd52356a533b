"""`tunesmith chat --as NAME`: which preset of a model is meant, and what it needs besides.

Does not depend on the model's weights: errors are reported before they are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.artifacts.open import find_files
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.files.columns import Columns
from tunesmith.data.files.records import read_records
from tunesmith.data.formats.legal import Laws
from tunesmith.data.prompts.articles import read_articles
from tunesmith.data.prompts.asking import Ask, ask_a_user, ask_about_cases, ask_by_messages, ask_plainly
from tunesmith.data.prompts.presets import Preset
from tunesmith.data.record import BadRecord, RecordProblem
from tunesmith.errors import DataError, UsageError
from tunesmith.local.overrides import absolute
from tunesmith.local.storage import embedded_for
from tunesmith.local.workdir import WorkDir

NONE = "none"


@dataclass(frozen=True, slots=True)
class AsOptions:
    """The command's arguments that say how to ask: `name` is --as, `system` --system."""

    name: str | None = None
    record: str | None = None
    articles: str | None = None
    changed_articles: str | None = None
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """How the person's words become a prompt: `note` says so, `first` is asked before anything is typed."""

    ask: Ask
    note: str = ""
    first: str = ""
    takes_text: bool = True


def asking(presets: Sequence[Preset], options: AsOptions, work_dir: Path) -> Asking:
    """Return how to ask. Raises UsageError that says what there is, or what is missing."""
    preset = chosen(presets, options)
    _refuse_unused(preset, options)
    if preset is None:
        return Asking(ask_plainly(options.system))
    note = f"As {preset.name} ({preset.about})."
    if preset.each_alone:
        note += " Each question is a separate conversation, as in training."
    note += f" --as {NONE} sends only your text."
    if preset.messages is not None:
        return Asking(ask_by_messages(preset), note, takes_text=preset.takes_text)
    record = _record(preset, options, work_dir)
    try:
        if preset.user_simulation is not None:
            return Asking(ask_a_user(preset, record), note)
        fact = record.get("fact")
        ask = ask_about_cases(preset, record, _laws(preset, options, work_dir))
        return Asking(ask, note, first=fact if isinstance(fact, str) else "")
    except RecordProblem as problem:
        raise UsageError(f"--record {options.record}: {problem.message}.") from None


def chosen(presets: Sequence[Preset], options: AsOptions) -> Preset | None:
    """Return the preset meant, None if none is. Raises UsageError naming those there are."""
    if options.name == NONE or (options.name is None and (options.system is not None or not presets)):
        return None
    if options.name is None and len(presets) == 1:
        return presets[0]
    if not presets:
        raise UsageError(f"--as {options.name}: this model has no presets; leave --as out.")
    for preset in presets:
        if preset.name == options.name:
            return preset
    named = "say how to ask this model" if options.name is None else "this model has no such preset"
    lines = [f"  --as {preset.name}: {' '.join(preset.about.split())}" for preset in presets]
    lines.append(f"  --as {NONE}: only your text")
    raise UsageError("\n".join([f"--as{f' {options.name}' if options.name else ''}: {named}.", *lines]))


def _refuse_unused(preset: Preset | None, options: AsOptions) -> None:
    if preset is not None and options.system is not None:
        raise UsageError(f"--system: use it with --as {NONE}; the preset {preset.name} has its own prompt.")
    needs_record = preset is not None and preset.messages is None
    if options.record is not None and not needs_record:
        raise UsageError("--record: only a preset of a simulated user or of cases takes a record.")
    law = None if preset is None else preset.legal_judgement
    if options.articles is not None and law is None:
        raise UsageError("--articles: only a preset of cases takes articles.")
    if options.changed_articles is not None and (law is None or law.changed_articles_uri is None):
        raise UsageError("--changed-articles: only a preset of cases with a changed law takes them.")


def _record(preset: Preset, options: AsOptions, work_dir: Path) -> Mapping[str, Any]:
    what = "the user's profile and task" if preset.user_simulation else "the case's relevant_articles"
    if options.record is None:
        raise UsageError(
            f"--as {preset.name} needs a file with one record in the dataset's format that has {what}: "
            f"--record FILE. Or chat without it: --as {NONE}."
        )
    uri = absolute(options.record)
    with embedded_for([uri], WorkDir(work_dir).s3):
        records = read_records(*find_files(uri), encoding=preset.encoding)
        try:
            found = list(Columns(preset.columns).renamed(records))
        except DataError as error:
            raise UsageError(f"--record {options.record}: {error.message}") from None
    for each in found:
        if isinstance(each, BadRecord):
            raise UsageError(f"--record {options.record}: {each}.")
    if len(found) != 1:
        raise UsageError(f"--record {options.record}: must have one record, has {len(found)}.")
    value: Mapping[str, Any] = found[0].value  # type: ignore[union-attr]
    return value


def _laws(preset: Preset, options: AsOptions, work_dir: Path) -> Laws:
    """Return the articles of --articles and --changed-articles, else those that training read."""
    law = preset.legal_judgement
    assert law is not None
    articles = _read(law.articles_uri, options.articles, preset, work_dir)
    if law.changed_articles_uri is None:
        return Laws(articles)
    return Laws(articles, _read(law.changed_articles_uri, options.changed_articles, preset, work_dir))


def _read(trained: str, named: str | None, preset: Preset, work_dir: Path) -> dict[str, str]:
    uri = trained if named is None else absolute(named)
    with embedded_for([uri], WorkDir(work_dir).s3):
        return read_articles(uri, StorageOptions(), preset.encoding)

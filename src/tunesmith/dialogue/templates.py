"""The prompts of the three roles: texts with named places, those that come along or the user's own.

`{history}` in a template stands for the dialogue so far; `{{history}}` is written where these characters
are meant, and every other brace is itself. Values are put in once: braces in them mean nothing.
Does not depend on dialogues; `context` says what goes into the places.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources

from tunesmith.api.dialogue import RolesSpec
from tunesmith.artifacts.open import find_files
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.formats.language import LANGUAGES, Language
from tunesmith.dialogue.state import Role
from tunesmith.errors import DataError

HISTORY = "history"
PLACES: Mapping[Role, tuple[str, ...]] = {
    Role.QUESTION: (HISTORY,),
    Role.ANSWER: (),
    Role.CORRECTION: (HISTORY, "question", "answer"),
}
"""What each role's template can hold. The answer's is a system message; the dialogue follows it as chat."""
NEEDED: Mapping[Role, tuple[str, ...]] = {
    Role.QUESTION: (HISTORY,),
    Role.ANSWER: (),
    Role.CORRECTION: ("question", "answer"),
}
LONGEST = 256 << 10
"""Bytes of a template."""
_OFTEN = 20
"""Times that a template may hold one place: each stands for a text of any length."""
_PLACE = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """One prompt's text, checked."""

    text: str

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with the values in their places."""
        return _PLACE.sub(
            lambda found: f"{{{found[1]}}}" if found[1] is not None else values[found[2]], self.text
        )


@dataclass(frozen=True, slots=True)
class Templates:
    """The template of each role and language."""

    by_role: Mapping[tuple[Role, Language], Template]

    def of(self, role: Role, language: Language) -> Template:
        """Return the template of a role and language."""
        return self.by_role[role, language]

    @property
    def digest(self) -> str:
        """SHA-256 of all texts: part of what makes up the results."""
        told = sorted((f"{role}.{language}", each.text) for (role, language), each in self.by_role.items())
        return sha256(repr(told).encode("utf-8", "surrogatepass")).hexdigest()


def load_templates(roles: RolesSpec, options: StorageOptions) -> Templates:
    """Return the user's prompts if `promptUri` names one (for both languages), else the built-in ones.

    Raises DataError, whose message names the field and the place; and the storage's errors.
    """
    found: dict[tuple[Role, Language], Template] = {}
    for role, uri in (
        (Role.QUESTION, roles.question.prompt_uri),
        (Role.ANSWER, roles.answer.prompt_uri),
        (Role.CORRECTION, roles.correction.prompt_uri),
    ):
        own = None if uri is None else checked(role, _read(role, uri, options))
        for language in LANGUAGES:
            found[role, language] = own or own_template(role, language)
    return Templates(found)


def own_template(role: Role, language: Language) -> Template:
    """Return the template that comes with Tunesmith."""
    file = resources.files("tunesmith.dialogue").joinpath("prompts", f"{role}.{language}.txt")
    return checked(role, file.read_text("utf-8"))


def checked(role: Role, text: str) -> Template:
    """Return a checked template, stripped. Raises DataError for unknown or missing places."""
    field, text = f"roles.{role}.promptUri", text.strip()
    places = Counter(found[2] for found in _PLACE.finditer(text) if found[2] is not None)
    unknown = sorted(places.keys() - set(PLACES[role]))
    if unknown:
        raise DataError(
            f"{field}: the prompt has a place {{{unknown[0]}}}, which is unknown. {_known(role)} "
            f"Write {{{{{unknown[0]}}}}} to mean these characters themselves."
        )
    missing = [f"{{{name}}}" for name in NEEDED[role] if name not in places]
    if missing:
        raise DataError(
            f"{field}: the prompt lacks {' and '.join(missing)}, so the model would not get what it has to "
            f"continue. {_known(role)}"
        )
    often = [name for name, times in places.items() if times > _OFTEN]
    if often:
        raise DataError(f"{field}: the prompt has the placeholder {{{often[0]}}} more than {_OFTEN} times.")
    return Template(text)


def _known(role: Role) -> str:
    if not PLACES[role]:
        return "The prompt of this role has no places: it is the system message, and the dialogue follows it."
    return f"Its places are {', '.join(f'{{{name}}}' for name in PLACES[role])}."


def _read(role: Role, uri: str, options: StorageOptions) -> str:
    field = f"roles.{role}.promptUri"
    store, entries = find_files(uri, options)
    if len(entries) != 1:
        raise DataError(f"{field}: {uri} has {len(entries)} files. Set it to the file with the prompt.")
    if entries[0].size > LONGEST:
        raise DataError(f"{field}: {uri} has {entries[0].size:,} bytes, but a prompt may have {LONGEST:,}.")
    try:
        return store.read(entries[0].key).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{field}: {uri} is not UTF-8 (at byte {error.start}). Save it as UTF-8.") from None

"""A user's utterances in other dialogues, for a prompt: never those to be trained or validated on.

Works on the dialogues of one user; does not depend on prompts and files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tunesmith.api.data_formats import HistorySpec
from tunesmith.data.formats.users import UserDialogue


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance of the user, in dialogue number `at`."""

    at: int
    time: float | None
    text: str


class UserTalks:
    """One user's dialogues, and which of them are the same talk: one starts with all turns of the other.

    Datasets often contain a talk several times, each time ending later.
    """

    def __init__(self, dialogues: Sequence[UserDialogue]) -> None:
        self._chains = [_chain(dialogue) for dialogue in dialogues]
        self._whole: dict[bytes, list[int]] = {}
        self._beginning: dict[bytes, list[int]] = {}
        for at, chain in enumerate(self._chains):
            self._whole.setdefault(chain[-1], []).append(at)
            for state in chain:
                self._beginning.setdefault(state, []).append(at)
        self.said = self._utterances(dialogues)

    def family(self, at: int) -> int:
        """Return the shortest form of this talk; dialogues of a family are never split."""
        return next(self._whole[state][0] for state in self._chains[at] if state in self._whole)

    def same(self, at: int) -> set[int]:
        """Return the dialogues that are the same talk as this one, including itself."""
        chain = self._chains[at]
        return {
            *self._beginning[chain[-1]],
            *(each for state in chain for each in self._whole.get(state, ())),
        }

    def _utterances(self, dialogues: Sequence[UserDialogue]) -> list[Utterance]:
        """Return a user's utterances, oldest first: by time if every dialogue has one, else in file order.

        A common beginning of two forms of a talk counts once.
        """
        order = list(range(len(dialogues)))
        if all(dialogue.time is not None for dialogue in dialogues):
            order.sort(key=lambda at: dialogues[at].time or 0.0)
        found: list[Utterance] = []
        seen: set[tuple[int, bytes]] = set()
        for at in order:
            family, chain = self.family(at), self._chains[at]
            for (mine, text), state in zip(_said(dialogues[at]), chain, strict=False):
                if mine and text.strip() and (family, state) not in seen:
                    found.append(Utterance(at, dialogues[at].time, text))
                seen.add((family, state))
        return found


def history(
    talks: UserTalks, at: int, dialogue: UserDialogue, forbidden: Callable[[str], bool], spec: HistorySpec
) -> tuple[str, ...]:
    """Return the newest utterances of other talks, newest last, one line each.

    If the dialogue has a time, only what is known to be older counts. A line that is `forbidden`, whole or
    truncated, is left out; also of the record's own history.
    """
    chosen: list[str] = []
    for text in _candidates(talks, at, dialogue):
        if len(chosen) == spec.max_items:
            break
        line = one_line(text)
        cut = line[: spec.max_characters]
        if line and not forbidden(line) and not forbidden(cut):
            chosen.append(cut)
    return tuple(chosen[::-1])


def one_line(text: str) -> str:
    """Return an utterance as a history shows it, before truncation."""
    return " ".join(text.split())


def _candidates(talks: UserTalks, at: int, dialogue: UserDialogue) -> Iterator[str]:
    """Yield utterances from the newest on."""
    if dialogue.history is not None:
        yield from reversed(dialogue.history)
        return
    same = talks.same(at)
    for said in reversed(talks.said):
        if said.at not in same and _before(said, dialogue):
            yield said.text


def _before(said: Utterance, dialogue: UserDialogue) -> bool:
    return dialogue.time is None or (said.time is not None and said.time < dialogue.time)


def _said(dialogue: UserDialogue) -> list[tuple[bool, str]]:
    said = [(turn.mine, turn.text) for turn in dialogue.turns]
    return [*said, (True, dialogue.prefix + dialogue.target)] if dialogue.target.strip() else said


def _chain(dialogue: UserDialogue) -> list[bytes]:
    """Return a hash for each prefix of the dialogue, target included; one for a dialogue without turns."""
    state = blake2b(digest_size=12)
    chain: list[bytes] = []
    for mine, text in _said(dialogue):
        state.update(f"{int(mine)}{len(text)}:{text}".encode("utf-8", "surrogatepass"))
        chain.append(state.digest())
    return chain or [state.digest()]

"""What a user said in other dialogues, for a prompt: never what is to be learned or judged there.

Knows the dialogues of one user; refuses to know prompts and files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tunesmith.api.datasets import HistorySpec
from tunesmith.data.users import Dialogue


@dataclass(frozen=True, slots=True)
class Said:
    """One utterance of the user. `family` is that of its dialogue."""

    family: int
    time: float | None
    text: str


def families(dialogues: Sequence[Dialogue]) -> list[int]:
    """For each dialogue the first one that is the same talk: of two, one begins with all turns of the other.

    Data sets often hold a talk several times, each time cut off later.
    """
    chains = [_chain(dialogue) for dialogue in dialogues]
    whole: dict[bytes, int] = {}
    for at, chain in enumerate(chains):
        whole.setdefault(chain[-1], at)
    return [next((whole[each] for each in chain if each in whole), at) for at, chain in enumerate(chains)]


def utterances(dialogues: Sequence[Dialogue], family: Sequence[int]) -> list[Said]:
    """All a user said, the oldest first: by time where every dialogue has one, else as the file has them."""
    order = list(range(len(dialogues)))
    if all(dialogue.time is not None for dialogue in dialogues):
        order.sort(key=lambda at: dialogues[at].time or 0.0)
    found: list[Said] = []
    seen: set[tuple[int, bytes]] = set()
    for at in order:
        dialogue = dialogues[at]
        for (mine, text), state in zip(_said(dialogue), _chain(dialogue), strict=True):
            if mine and text.strip() and (family[at], state) not in seen:
                found.append(Said(family[at], dialogue.time, text))
            seen.add((family[at], state))
    return found


def history(
    said: Sequence[Said],
    dialogue: Dialogue,
    family: int,
    forbidden: Collection[str],
    spec: HistorySpec,
) -> tuple[str, ...]:
    """The newest utterances of other talks, newest last, each one line.

    Where the dialogue has a time, only what is known to be older counts. `forbidden` texts are left out.
    """
    given = dialogue.history
    if given is not None:
        chosen = [text for text in given if text.strip() not in forbidden][::-1]
    else:
        chosen = []
        for each in reversed(said):
            if len(chosen) == spec.max_items:
                break
            if each.family != family and _before(each, dialogue) and each.text.strip() not in forbidden:
                chosen.append(each.text)
    newest = chosen[: spec.max_items][::-1]
    return tuple(" ".join(text.split())[: spec.max_characters] for text in newest)


def _before(said: Said, dialogue: Dialogue) -> bool:
    return dialogue.time is None or (said.time is not None and said.time < dialogue.time)


def _said(dialogue: Dialogue) -> list[tuple[bool, str]]:
    final = dialogue.prefix + dialogue.target if dialogue.target.strip() else ""
    return [*((turn.mine, turn.text) for turn in dialogue.turns), (True, final)]


def _chain(dialogue: Dialogue) -> list[bytes]:
    """A hash for each beginning of the dialogue, target included."""
    state = blake2b(digest_size=12)
    chain: list[bytes] = []
    for mine, text in _said(dialogue):
        state.update(f"{int(mine)}{len(text)}:{text}".encode("utf-8", "surrogatepass"))
        chain.append(state.digest())
    return chain

"""Format `userSimulation`: all records of one user become replies that the model gives in the user's place.

For one user at a time: which turns are samples, which of them are chosen, what the history may show. So no
user's choice depends on the other users in the file. Does not depend on files nor on the split: a callback
decides who is held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

from tunesmith.api.data_formats import UserSimulationFormat
from tunesmith.data.formats.histories import UserTalks, history, one_line
from tunesmith.data.formats.user_prompt import (
    OPENING,
    chat_turns,
    shows_part,
    system_text,
    with_target_prefix,
)
from tunesmith.data.formats.users import UserDialogue, UserTurn
from tunesmith.data.hash_split import rank
from tunesmith.data.record import Skipped
from tunesmith.tokens.conversation import Conversation, Message

OWN_TURN = "the turn before the continuation is the user's own"
BLANK = "the continuation is blank"
NOT_DRAWN = "not chosen (maxSamplesPerUser)"
NOT_LAST = "not the user's last (oneSamplePerUser)"


@dataclass(frozen=True, slots=True)
class UserItem:
    """A conversation with one or more samples of one dialogue.

    Items of one `group` share the prefix of their prompts; those of one `split_key` must not be split.
    """

    dialogue: UserDialogue
    content: Conversation
    group: str
    split_key: str
    samples: int


@dataclass(frozen=True, slots=True)
class _Slot:
    """One possible sample: dialogue `at`, and the position of its turn (the target's is len(turns))."""

    at: int
    turn: int


def user_items(
    user: str,
    dialogues: Sequence[UserDialogue],
    fmt: UserSimulationFormat,
    *,
    by: str | None,
    validates: Callable[[str], bool],
    judged: Callable[[str, str], bool] = lambda user, text: False,
    system_prompt: str | None = None,
) -> Iterator[UserItem | Skipped]:
    """Yield every sample of one user, in the order of `dialogues`; what a rule leaves out is Skipped.

    `by` is "user" or "sample" (a dialogue is never split); `validates` returns whether a split key is held
    out, `judged` whether a user's text is the target of a validation sample of another dataset. The same
    seed makes the same choice, whatever other users there are.
    """
    talks = UserTalks(dialogues)
    marks = [_mark(dialogue) for dialogue in dialogues]
    keys = [_split_key(user, marks[talks.family(at)], by) for at in range(len(dialogues))]
    held_out = [validates(key) for key in keys]
    slots: list[_Slot] = []
    for at, dialogue in enumerate(dialogues):
        slots += [_Slot(at, turn) for turn in _turns(dialogue, fmt.expand)]
        reason = _unusable(dialogue)
        if reason:
            yield Skipped(dialogue.place, reason)
    chosen: dict[int, list[int]] = {}
    for side in (False, True):
        here = [slot for slot in slots if held_out[slot.at] is side]
        drawn = set(_draw(user, here, dialogues, marks, fmt))
        for slot in here:
            if slot in drawn:
                chosen.setdefault(slot.at, []).append(slot.turn)
            else:
                reason = NOT_LAST if fmt.one_sample_per_user else NOT_DRAWN
                yield Skipped(dialogues[slot.at].place, reason)
    held = {at: turns for at, turns in chosen.items() if held_out[at]}
    secret = _all_targets(dialogues, held)
    for at, turns in sorted(chosen.items()):
        past: tuple[str, ...] = ()
        if shows_part(fmt, "history"):
            own = secret | _all_targets(dialogues, {at: turns})
            past = history(talks, at, dialogues[at], _either(own, partial(judged, user)), fmt.history)
        for content, count in _contents(fmt, dialogues[at], past, turns, system_prompt):
            yield UserItem(dialogues[at], content, f"{user}\0{marks[at]}", keys[at], count)


def _either(texts: set[str], judged: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: text in texts or judged(text)


def _split_key(user: str, mark: str, by: str | None) -> str:
    return f"user\0{user}" if by != "sample" else f"user\0{user}\0{mark}"


def _mark(dialogue: UserDialogue) -> str:
    """Return a dialogue's key, wherever it is."""
    digest = blake2b(digest_size=12)
    for part in (
        *((f"{turn.mine}", turn.text) for turn in dialogue.turns),
        (dialogue.prefix, dialogue.target),
    ):
        for text in part:
            digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _unusable(dialogue: UserDialogue) -> str:
    """Return why the continuation is not a sample; empty if it is one."""
    if not dialogue.target.strip():
        return BLANK
    own = bool(dialogue.turns) and dialogue.turns[-1].mine and not dialogue.prefix.strip()
    return OWN_TURN if own else ""


def _turns(dialogue: UserDialogue, expand: bool) -> list[int]:
    """Return the positions of the turns that are samples; the continuation's is the number of turns."""
    turns = dialogue.turns
    found = []
    if expand and not dialogue.extracted:
        found = [at for at in range(1, len(turns)) if turns[at].mine and not turns[at - 1].mine]
    return found + ([] if _unusable(dialogue) else [len(turns)])


def _draw(
    user: str,
    slots: list[_Slot],
    dialogues: Sequence[UserDialogue],
    marks: list[str],
    fmt: UserSimulationFormat,
) -> list[_Slot]:
    """Return the slots that are used."""
    if fmt.one_sample_per_user:
        final = [slot for slot in slots if slot.turn == len(dialogues[slot.at].turns)]
        timed = all(dialogue.time is not None for dialogue in dialogues)
        last = max(final, key=lambda s: (dialogues[s.at].time if timed else 0, s.at), default=None)
        return [] if last is None else [last]
    most = fmt.max_samples_per_user
    if most is None or len(slots) <= most:
        return slots
    ranked = sorted(
        slots, key=lambda s: (rank(fmt.sample_seed, "draw", f"{user}\0{marks[s.at]}\0{s.turn}"), s.at)
    )
    return ranked[:most]


def _all_targets(dialogues: Sequence[UserDialogue], chosen: Mapping[int, Sequence[int]]) -> set[str]:
    """Return the lines by which a history would leak samples."""
    found: set[str] = set()
    for at, turns in chosen.items():
        dialogue = dialogues[at]
        for turn in turns:
            said = dialogue.turns[turn].text if turn < len(dialogue.turns) else dialogue.target
            found |= {one_line(said), one_line(dialogue.prefix + said)}
    return found


def targets_of(item: UserItem) -> Iterator[str]:
    """Return the lines by which histories of other datasets would leak an item's samples."""
    prefix = item.dialogue.prefix
    for message in item.content.messages:
        if message.role == "assistant" and message.weight > 0:
            yield one_line(message.content)
            if prefix:
                yield one_line(prefix + message.content)


def _contents(
    fmt: UserSimulationFormat,
    dialogue: UserDialogue,
    past: tuple[str, ...],
    turns: list[int],
    system_prompt: str | None,
) -> Iterator[tuple[Conversation, int]]:
    """Return one conversation for all samples if they continue each other, else one each."""
    everything = (*dialogue.turns, UserTurn(True, dialogue.target))
    if fmt.prompt_style != "flat" and shows_part(fmt, "context"):
        messages = chat_turns(everything[: turns[-1] + 1], frozenset(turns))
        if turns[-1] == len(dialogue.turns):
            messages = [*with_target_prefix(messages[:-1], dialogue.prefix), messages[-1]]
        yield _conversation(fmt, dialogue, past, (), messages, system_prompt), len(turns)
        return
    for turn in turns:
        shown = everything[:turn] if shows_part(fmt, "context") else ()
        prefix = dialogue.prefix if turn == len(dialogue.turns) else ""
        messages = [*with_target_prefix([], prefix), Message("assistant", everything[turn].text)]
        yield _conversation(fmt, dialogue, past, shown, messages, system_prompt), 1


def next_turn(
    fmt: UserSimulationFormat, dialogue: UserDialogue, past: tuple[str, ...], system_prompt: str | None = None
) -> Conversation:
    """Return the conversation that ends with the dialogue's target, which may still be empty.

    `past` is what the history shows.
    """
    ((content, _),) = _contents(fmt, dialogue, past, [len(dialogue.turns)], system_prompt)
    return content


def _conversation(
    fmt: UserSimulationFormat,
    dialogue: UserDialogue,
    past: tuple[str, ...],
    shown: tuple[UserTurn, ...],
    messages: list[Message],
    system_prompt: str | None,
) -> Conversation:
    system = system_text(fmt, dialogue, past, shown)
    text = system.text()
    if text:
        return Conversation((Message("system", text), *messages), system, merge=False, opening=OPENING)
    first = [Message("system", system_prompt)] if system_prompt else []
    return Conversation((*first, *messages), merge=False, opening=OPENING)

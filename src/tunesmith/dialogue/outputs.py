"""The files of a DialogueGenJob, out of its seeds and the journal's rows.

Streams: one dialogue is in memory, and nothing else. The same seeds and rows give the same bytes, so that an
attempt that was killed in here harms no other. Does not depend on where the files go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.artifacts.json_files import json_line, whole_file
from tunesmith.dialogue.examples import DialogueExamples
from tunesmith.dialogue.rounds import DialoguePlan
from tunesmith.dialogue.state import Dialogue, PlannedSeed
from tunesmith.dialogue.statistics import NOTHING_LOST, DialogueStatistics, FinishedDialogue, LostInFlight
from tunesmith.dialogue.turns import CallRow, GetRow
from tunesmith.errors import TemporaryError
from tunesmith.names import FAILED_KEY, MESSAGES_KEY, STATS_KEY, Reason


@dataclass(frozen=True, slots=True)
class DialogueOutputs:
    """What the files hold, for the report: `statistics` as in stats.json, `examples` by kind.

    `first_failure`: which dialogue was the first to fail and why, "" if none did.
    """

    statistics: dict[str, Any]
    examples: dict[str, list[dict[str, Any]]]
    first_failure: str = ""


def single_turn_key(number: int) -> str:
    """Return the file of a round's single turns."""
    return f"round{number}/round{number}_single_turn.jsonl"


def history_key(number: int) -> str:
    """Return the file of the dialogues up to a round; the first one's is called the seed's."""
    return f"round{number}/round{number}_history{'_seed' if number == 1 else ''}.jsonl"


def write_outputs(
    plan: DialoguePlan,
    seeds: Iterable[PlannedSeed],
    get: GetRow,
    folder: Path,
    *,
    lost: LostInFlight = NOTHING_LOST,
    progress: Callable[[int], None] = lambda dialogues: None,
) -> DialogueOutputs:
    """Write the files of each round, messages.jsonl, failed.jsonl and stats.json, in the planned order.

    `get` gives committed rows by key (`artifacts.journal.rows.CommittedRows.get`); `lost` is what was lost in
    flight. A dialogue that failed is in the files of the rounds that it finished, and in failed.jsonl;
    messages.jsonl holds whole dialogues only. A file is written whole or not at all. TemporaryError if a
    dialogue has not ended, or the disk is full.
    """
    statistics, examples, first = DialogueStatistics(plan.rounds, lost), DialogueExamples(), ""
    with ExitStack() as files:
        rounds = [_RoundFiles(folder, number, files) for number in range(1, plan.rounds + 1)]
        messages = files.enter_context(whole_file(folder / MESSAGES_KEY))
        failed = files.enter_context(whole_file(folder / FAILED_KEY))
        for done, seed in enumerate(seeds, 1):
            grown = finished_dialogue(plan, seed, get)
            for each in rounds:
                each.add(grown.dialogue)
            if grown.failure is None:
                messages.write(json_line(messages_record(grown.dialogue)))
            else:
                failed.write(json_line(failed_record(grown, grown.failure)))
                first = first or _in_words(seed, grown.failure)
            statistics.add(grown)
            examples.add(grown)
            progress(done)
    values = statistics.values()
    with whole_file(folder / STATS_KEY) as file:
        file.write(json.dumps(values, ensure_ascii=False, indent=2).encode() + b"\n")
    return DialogueOutputs(values, examples.values(), first)


def _in_words(seed: PlannedSeed, turn: CallRow) -> str:
    return f"{seed.id}, {turn.role} of round {turn.round}: {turn.said.why}"


class _RoundFiles:
    """The two files of one round."""

    def __init__(self, folder: Path, number: int, files: ExitStack) -> None:
        self._number = number
        self._single = files.enter_context(whole_file(folder / single_turn_key(number)))
        self._history = files.enter_context(whole_file(folder / history_key(number)))

    def add(self, dialogue: Dialogue) -> None:
        """Write a dialogue, if it finished this round."""
        rounds = dialogue.whole_rounds[: self._number]
        if len(rounds) == self._number:
            names = dialogue.seed.names() | dialogue.seed.offered()
            self._single.write(json_line({**names, **rounds[-1].as_dict()}))
            self._history.write(json_line({**names, "rounds": [each.as_dict() for each in rounds]}))


def finished_dialogue(plan: DialoguePlan, seed: PlannedSeed, get: GetRow) -> FinishedDialogue:
    """Return the dialogue of a seed, rebuilt from the rows. TemporaryError if one is missing."""
    dialogue, turns, before = Dialogue(seed, plan.rounds), list[CallRow](), list[CallRow]()
    while dialogue.wanted is not None:
        number, role = dialogue.wanted
        known = [turn for _, turn in plan.turns_of(get, seed, number, role)]
        if not known:
            raise TemporaryError(
                f"The {role} of round {number} of dialogue {seed.id} is missing. Run the job again to "
                "generate it.",
                reason=Reason.NO_RESULT,
            )
        *failed, turn = known
        before += failed
        turns.append(turn)
        if turn.said.reason:
            break
        dialogue.say(turn.said.text, turn.said.truncated, turn.said.reasoning, turn.said.calls)
    return FinishedDialogue(dialogue, turns, before)


def messages_record(dialogue: Dialogue) -> dict[str, Any]:
    """Return the whole dialogue as FineTuneJob's format `chat` reads it, with the corrected answers.

    `truncated: true` if a text in it was truncated at its token limit.
    """
    messages = [message.as_dict() for message in dialogue.messages()]
    marks = {"truncated": True} if dialogue.truncated() else {}
    return {**dialogue.seed.names(), **dialogue.seed.offered(), "messages": messages} | marks


def failed_record(grown: FinishedDialogue, turn: CallRow) -> dict[str, Any]:
    """Return where and why a dialogue ended, with the raw reply and what was said before."""
    said = turn.said
    return {
        **grown.seed.names(),
        **grown.seed.offered(),
        "round": turn.round,
        "role": str(turn.role),
        "reason": said.reason,
        "why": said.why,
        "raw": said.raw,
        "tries": said.tries,
        "rounds": [each.as_dict() for each in grown.dialogue.rounds if each.texts],
    }

"""Make the example's data: the law of an invented town, cases before its court, and written judgements.

    python examples/legal/make_cases.py [OUT_FOLDER]

Without OUT_FOLDER the files go beside this script. Everything is drawn by one seed, so it is always the same.
A case tells what was done and two circumstances. Which of the two changes the term, if any, is for the
articles to say, and what the accused was allowed to do is no violation.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.formats.legal import NO_VIOLATIONS, articles_from, case_from, prompt_messages

SEED = 7
WARM_UP, TRAINING, TEST = 48, 120, 60
VERDICTS = ("grave", "plain", "allowed", "grave", "plain")  # one case in five is no violation

Record = dict[str, Any]
Case = tuple[Record, str]  # with the reason for its judgement


@dataclass(frozen=True)
class Offence:
    article: str  # its id
    text: str
    charge: str
    months: int
    grave: str  # the circumstance that makes the term longer
    more_months: int
    acts: str
    objects: tuple[str, ...]
    excuse: str


@dataclass(frozen=True)
class Circumstance:
    yes: tuple[str, ...]  # how a case tells of it
    no: tuple[str, ...]


OFFENCES = (
    Offence(
        "A1",
        "Taking another's goods without leave is theft: by day 6 months, by night 14 months.",
        "theft",
        6,
        "night",
        14,
        "{name} took {object}.",
        (
            "a ham from the inn",
            "two hens from the mill",
            "a clock from the school",
            "a boat from the pier",
            "boots from the cobbler",
            "a bell from the chapel",
            "a saddle from the smith",
        ),
        "The owner allowed it.",
    ),
    Offence(
        "A2",
        "Setting fire to what is another's is arson: by day 24 months, by night 60 months.",
        "arson",
        24,
        "night",
        60,
        "{name} burned down {object}.",
        (
            "a hay barn",
            "the old ferry",
            "a fence",
            "the bakery",
            "a boathouse",
            "a wagon",
            "the tannery",
        ),
        "The owner allowed it.",
    ),
    Offence(
        "A3",
        "Bringing in goods without paying duty is smuggling: unarmed 10 months, armed 36 months.",
        "smuggling",
        10,
        "armed",
        36,
        "{name} brought {object} past the customs house.",
        ("tea", "salt", "lace", "tobacco", "pepper", "brandy", "silk"),
        "The duty was paid.",
    ),
    Offence(
        "A4",
        "Hunting in the count's wood without a permit is poaching: unarmed 4 months, armed 12 months.",
        "poaching",
        4,
        "armed",
        12,
        "{name} caught {object} in the count's wood.",
        ("a deer", "two hares", "a boar", "a swan", "five quails", "a badger", "a pheasant"),
        "{He} had a permit.",
    ),
    Offence(
        "A5",
        "Selling false goods to one who does not know it is fraud: once 8 months, again 20 months.",
        "fraud",
        8,
        "again",
        20,
        "{name} sold {object}.",
        (
            "brass as gold",
            "glass as rubies",
            "chalk as flour",
            "a mule as a horse",
            "water as medicine",
            "rabbit as veal",
            "tin as silver",
        ),
        "The buyer knew it.",
    ),
    Offence(
        "A6",
        "Signing or sealing for another unasked is forgery: once 16 months, again 30 months.",
        "forgery",
        16,
        "again",
        30,
        "{name} put {object}.",
        (
            "the mayor's name under a letter",
            "the judge's seal on a deed",
            "the doctor's name on a bill",
            "the priest's name in a register",
            "the captain's seal on a pass",
            "the miller's name on a cheque",
            "the count's seal on a lease",
        ),
        "{He} was asked to.",
    ),
)

CIRCUMSTANCES = {
    "night": Circumstance(("It was by night.", "This was by night."), ("It was by day.", "This was by day.")),
    "armed": Circumstance(
        ("{He} was armed.", "{He} came armed."), ("{He} was unarmed.", "{He} came unarmed.")
    ),
    "again": Circumstance(
        ("{He} did it again.", "It was done again."), ("{He} did it once.", "It was done once.")
    ),
}
SAYS = {"night": ("by night", "by day"), "armed": ("armed", "unarmed"), "again": ("again", "once")}

MEN, WOMEN = ("Tom", "Ben", "Sam", "Paul", "Max"), ("Ann", "Rose", "Eve", "Jane", "Clara")


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or any(word.startswith("-") for word in arguments):
        print(__doc__, file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made().items():
        (folder / name).write_text(text, "utf-8")
    return 0


def made() -> dict[str, str]:
    """The text of each file by its name."""
    drawn = draw(random.Random(SEED), WARM_UP + TRAINING + TEST)
    warm_up, training, test = drawn[:WARM_UP], drawn[WARM_UP:-TEST], drawn[-TEST:]
    return {
        "articles.jsonl": as_lines([{"id": name, "content": text} for name, text in articles().items()]),
        "warm_up.jsonl": as_lines([judged(record, reason) for record, reason in numbered(warm_up, "w")]),
        "cases.jsonl": as_lines([record for record, _ in numbered(training, "c")]),
        "test_cases.jsonl": as_lines([record for record, _ in numbered(test, "t")]),
    }


def articles() -> dict[str, str]:
    return {offence.article: offence.text for offence in OFFENCES}


def as_lines(records: list[Record]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def numbered(drawn: list[Case], letter: str) -> list[Case]:
    return [({"id": f"{letter}{n:03}"} | record, reason) for n, (record, reason) in enumerate(drawn, 1)]


def draw(rng: random.Random, count: int) -> list[Case]:
    """So many different cases; offences and verdicts are balanced."""
    found: dict[str, Case] = {}
    while len(found) < count:
        rounds, which = divmod(len(found), len(OFFENCES))
        verdict = VERDICTS[(rounds + which) % len(VERDICTS)]
        record, reason = one(rng, OFFENCES[which], verdict)
        found.setdefault(record["fact"], (record, reason))
    return list(found.values())


def one(rng: random.Random, offence: Offence, verdict: str) -> Case:
    """A case; one in three names a second article, which does not apply."""
    grave = verdict == "grave" if verdict != "allowed" else rng.random() < 0.5
    told = [offence.acts.replace("{object}", rng.choice(offence.objects))]
    told += circumstances(rng, offence, grave)
    if verdict == "allowed":
        told.insert(rng.choice((1, 2, 3)), offence.excuse)
    words = words_for(rng)
    fact = " ".join(told).format(**words)
    record: Record = {"fact": fact, "relevant_articles": named(rng, offence)}
    if verdict == "allowed":
        return record, offence.excuse.format(**words)
    months = offence.more_months if grave else offence.months
    how = SAYS[offence.grave][not grave]
    return record | {
        "charge": offence.charge,
        "prison_time": months,
    }, f"{how}: {offence.charge}, {months} months."


def circumstances(rng: random.Random, offence: Offence, grave: bool) -> list[str]:
    """The one that matters, and one that does not, in any order."""
    other = rng.choice([name for name in CIRCUMSTANCES if name != offence.grave])
    told = [tell(rng, offence.grave, grave), tell(rng, other, rng.random() < 0.5)]
    rng.shuffle(told)
    return told


def tell(rng: random.Random, name: str, holds: bool) -> str:
    found = CIRCUMSTANCES[name]
    return rng.choice(found.yes if holds else found.no)


def named(rng: random.Random, offence: Offence) -> list[str]:
    if rng.random() >= 1 / 3:
        return [offence.article]
    return sorted([offence.article, rng.choice([o.article for o in OFFENCES if o is not offence])])


def words_for(rng: random.Random) -> dict[str, str]:
    name = rng.choice(MEN + WOMEN)
    he, his, him = ("he", "his", "him") if name in MEN else ("she", "her", "her")
    return {"name": name, "He": he.capitalize(), "his": his, "him": him}


def judged(record: Record, reason: str) -> Record:
    """A conversation: the very prompt that sampling uses, and a judgement written out."""
    prompt = prompt_messages(case_from(record), articles_from(articles()))
    conclusion = f"{record['charge']} | {record['prison_time']}" if "charge" in record else NO_VIOLATIONS[1]
    messages = [{"role": message.role, "content": message.content} for message in prompt]
    messages.append({"role": "assistant", "content": f"{reason}\n{conclusion}"})
    return {"id": record["id"], "messages": messages}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

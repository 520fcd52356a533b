"""User simulation once more, from the format's description alone: whole lists in memory, nothing clever.

Tests compare the product with it. What is drawn at random it does not know; it says how many there must be,
what they may be, and what a given draw must show.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

ABLATIONS = (
    "profile_and_history_and_context",
    "profile_and_history",
    "profile_and_context",
    "history_and_context",
    "profile_only",
    "history_only",
    "context_only",
)
DEFAULTS = {"expand": False, "ablationConfig": "profile_and_context", "promptStyle": "simple"}
OTHER, MINE = "user", "assistant"  # the simulated user speaks as the assistant
Turn = tuple[str, str]


@dataclass
class Talk:
    """One data item: what was said, what is said next, and what is known beside it."""

    user: str
    turns: list[Turn]
    target: str
    prefix: str = ""
    time: float | None = None
    profile: Any = None
    personality: Any = None
    task: str = ""
    extracted: bool = False
    given: list[str] | None = None

    def whole(self) -> list[Turn]:
        """Everything that was said, target included."""
        said = _with_prefix(self.turns, self.prefix)
        return [*said, (MINE, self.target)] if self.target.strip() else said


@dataclass
class Candidate:
    """A sample that may be drawn: the turns before its target, and the target."""

    talk: Talk
    before: list[Turn]
    target: str
    last: bool
    """Whether it is the continuation rather than an earlier turn."""

    @property
    def user(self) -> str:
        return self.talk.user


@dataclass
class Read:
    """All users in order of their first record."""

    talks: dict[str, list[Talk]] = field(default_factory=dict)
    unnamed: int = 0


def read(records: Iterable[Mapping[str, Any]]) -> Read:
    """Every talk of every user."""
    found = Read()
    for record in records:
        extracted = "next_question" in record
        profile = record.get("user_profile") if extracted else (record.get("user") or {}).get("profile")
        name = profile.get("name") if isinstance(profile, Mapping) else None
        found.unnamed += not record.get("user_hash")
        user = record.get("user_hash") or name or "unknown"
        mine = found.talks.setdefault(user, [])
        mine += [_extracted(user, record)] if extracted else _nested(user, record, name)
    return found


def _nested(user: str, record: Mapping[str, Any], name: str | None) -> list[Talk]:
    task, person = record["task"], record.get("user") or {}
    talks = []
    for collection in task["task_behavior_collections"]:
        for item in collection["data"]:
            turns = []
            for turn in item.get("context") or []:
                if turn["content"].strip():
                    is_mine = turn["source"].lower() == "user" or turn["source"] == name
                    turns.append((MINE if is_mine else OTHER, turn["content"]))
            talks.append(
                Talk(
                    user,
                    turns,
                    item.get("continuation") or "",
                    item.get("continuation_prefix") or "",
                    _time(item.get("timestamp")),
                    person.get("profile"),
                    person.get("personality"),
                    task.get("description") or "",
                )
            )
    return talks


def _extracted(user: str, record: Mapping[str, Any]) -> Talk:
    turns = [(t["role"], t["content"]) for t in record["context"] if t["content"].strip()]
    turns = [(MINE if role == MINE else OTHER, text) for role, text in turns]
    target, profile = record["next_question"], record.get("user_profile")
    return Talk(user, turns, target, profile=profile, extracted=True, given=record.get("history"))


def _time(value: Any) -> float | None:
    if value is None or isinstance(value, int | float):
        return value
    return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp() if "-" in value else float(value)


def candidates(talks: Iterable[Talk], *, expand: bool) -> list[Candidate]:
    """What may be drawn."""
    return [each for talk in talks for each in _candidates(talk, expand)]


def _candidates(talk: Talk, expand: bool) -> list[Candidate]:
    found = []
    if expand and not talk.extracted:
        for at, (who, text) in enumerate(talk.turns):
            if who == MINE and at > 0 and talk.turns[at - 1][0] == OTHER:
                found.append(Candidate(talk, talk.turns[:at], text, last=False))
    before = _with_prefix(talk.turns, talk.prefix)
    if talk.target.strip() and (not before or before[-1][0] == OTHER):
        found.append(Candidate(talk, before, talk.target, last=True))
    return found


def _with_prefix(turns: list[Turn], prefix: str) -> list[Turn]:
    prefix = prefix.strip()
    if not prefix:
        return turns
    if turns and turns[-1][0] == OTHER:
        return [*turns[:-1], (OTHER, f"{turns[-1][1]}\n{prefix}")]
    return [*turns, (OTHER, prefix)]


def skipped(talks: Iterable[Talk]) -> Counter[str]:
    """Continuations that are not used: `own` turn last in the context, or `blank`."""
    counts: Counter[str] = Counter()
    for talk in talks:
        before = _with_prefix(talk.turns, talk.prefix)
        if not talk.target.strip():
            counts["blank"] += 1
        elif before and before[-1][0] == MINE:
            counts["own"] += 1
    return counts


def last_one(talks: list[Talk]) -> list[Candidate]:
    """The user's last usable continuation: by time where all have one, else as the file has them."""
    usable = [each for each in candidates(talks, expand=False) if each.last]
    if all(talk.time is not None for talk in talks):
        usable.sort(key=lambda each: each.talk.time or 0.0)
    return usable[-1:]


def shows(settings: Mapping[str, Any]) -> set[str]:
    """Which of profile, history and context a prompt shows."""
    ablation = settings.get("ablationConfig") or DEFAULTS["ablationConfig"]
    parts = {part for part in ("profile", "history", "context") if part in str(ablation)}
    override = settings.get("useHistory")
    if override is not None:
        parts = parts - {"history"} | ({"history"} if override else set())
    return parts


def turns_shown(candidate: Candidate, settings: Mapping[str, Any]) -> list[Turn]:
    """The turns before the target as the ablation leaves them."""
    if "context" in shows(settings):
        return candidate.before
    return _with_prefix([], candidate.talk.prefix if candidate.last else "")


def same_talk(one: Talk, other: Talk) -> bool:
    """Whether one is the other's beginning."""
    short, long = sorted([one.whole(), other.whole()], key=len)
    return one is other or long[: len(short)] == short


def past_of(
    talk: Talk,
    talks: list[Talk],
    settings: Mapping[str, Any],
    learned: Iterable[Candidate],
    held_out: Iterable[Candidate] = (),
) -> list[str]:
    """What the prompts of a talk show of the user's others, given its drawn samples and the held-out ones."""
    if "history" not in shows(settings):
        return []
    most = settings.get("history", {}).get("maxItems", 15)
    characters = settings.get("history", {}).get("maxCharacters", 200)
    never = {text for each in (*learned, *held_out) for text in _given_away(each)}
    said = talk.given if talk.given is not None else _said_before(talk, talks)
    lines = [one_line(text) for text in said if text.strip()]
    kept = [text for text in lines if text not in never and text[:characters] not in never]
    return [text[:characters] for text in kept[max(0, len(kept) - most) :]]


def one_line(text: str) -> str:
    """History has a line an utterance."""
    return " ".join(text.split())


def _given_away(sample: Candidate) -> set[str]:
    prefix = sample.talk.prefix if sample.last else ""
    return {one_line(sample.target), one_line(prefix + sample.target)}


def _said_before(talk: Talk, talks: list[Talk]) -> list[str]:
    order = list(talks)
    if all(each.time is not None for each in order):
        order.sort(key=lambda each: each.time or 0.0)
    said: list[str] = []
    told: list[Talk] = []
    for other in order:
        older = talk.time is None or (other.time is not None and other.time < talk.time)
        if older and not same_talk(talk, other):
            said += _new_in(other, [each for each in told if same_talk(each, other)])
        told.append(other)
    return said


def _new_in(talk: Talk, told: list[Talk]) -> list[str]:
    """What the user says in a talk beyond the shorter or longer forms of it that came before."""
    known = max((_common(talk.whole(), each.whole()) for each in told), default=0)
    whole = talk.whole()
    texts = [text for who, text in whole[known:] if who == MINE]
    if talk.target.strip() and known < len(whole):
        texts[-1] = talk.prefix + talk.target
    return texts


def _common(one: list[Turn], other: list[Turn]) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def movielens(ratings: Iterable[Mapping[str, str]], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """MovieLens' two tables in the nested shape."""
    return [
        {
            "user_hash": row["userId"],
            "user": {},
            "task": {
                "description": "Rate each film from 0.5 to 5 stars.",
                "task_behavior_collections": [
                    {
                        "type": "rating",
                        "data": [
                            {
                                "context": [],
                                "continuation": row["rating"],
                                "continuation_prefix": f"{titles[row['movieId']]}: ",
                                "timestamp": row["timestamp"],
                            }
                        ],
                    }
                ],
            },
        }
        for row in ratings
    ]


@dataclass(frozen=True)
class Seen:
    """One sample as a table holds it: what the prompt shows, and what is learned."""

    sections: Mapping[str, list[str]]
    turns: tuple[Turn, ...]
    target: str
    group: int

    def section(self, name: str) -> list[str]:
        return self.sections.get(name, [])


_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n?", re.DOTALL)


def seen(table: Any, tokenizer: Any, *, all_copies: bool = False) -> list[Seen]:
    """Each sample of a table of the `chatml` tokenizer that is seen in training."""
    return [_seen(table, at, tokenizer) for at in range(len(table)) if all_copies or table.copies[at] > 0]


def _seen(table: Any, at: int, tokenizer: Any) -> Seen:
    ids, weights = table.ids(at).tolist(), table.weights(at).tolist()
    labels = [id_ for id_, weight in zip(ids, weights, strict=True) if weight > 0]
    assert ids[-len(labels) :] == labels
    target = tokenizer.decode(labels)
    assert target.endswith("<|im_end|>")
    turns = _TURN.findall(tokenizer.decode(ids))
    system = turns.pop(0)[1] if turns[0][0] == "system" else ""
    assert turns[-1] == (MINE, target.removesuffix("<|im_end|>"))
    return Seen(_sections(system), tuple(turns[:-1]), turns[-1][1], int(table.groups[at]))


_NAMES = ("Profile", "Personality", "Task", "History", "Dialogue")
_CHINESE = ("【个人资料】", "【性格】", "【任务】", "【以往发言】", "【对话】")
_JAPANESE = ("【プロフィール】", "【性格】", "【タスク】", "【過去の発言】", "【会話】")
_MARKS = {f"[{name}]": name for name in _NAMES} | dict(zip(_CHINESE + _JAPANESE, _NAMES * 2, strict=True))
_SIDE = {"你：": "You: ", "对方：": "Other: ", "あなた：": "You: ", "相手：": "Other: "}
_OTHER_SIDE = re.compile("^(你|对方|あなた|相手)：")


def _sections(system: str) -> dict[str, list[str]]:
    """Lines under each mark, which is here in English; what stands before the first one is under ""."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in system.split("\n"):
        if line in _MARKS:
            name = _MARKS[line]
            found[name] = []
        elif line:
            found.setdefault(name, []).append(_OTHER_SIDE.sub(lambda side: _SIDE[side[0]], line))
    return found


def must_show(sample: Candidate, settings: Mapping[str, Any]) -> tuple[tuple[Turn, ...], list[str]]:
    """The chat turns before the target, and the lines of the dialogue in the system message."""
    if settings.get("promptStyle") != "flat" or "context" not in shows(settings):
        return tuple(turns_shown(sample, settings)), []
    said = sample.talk.turns if sample.last else sample.before
    lines = [line for who, text in said for line in f"{_SIDES[who]}: {text}".split("\n") if line]
    return tuple(_with_prefix([], sample.talk.prefix if sample.last else "")), lines


_SIDES = {OTHER: "Other", MINE: "You"}


def leaves(value: Any) -> list[str]:
    """Every text and number of a JSON value."""
    if isinstance(value, Mapping):
        return [leaf for each in value.values() for leaf in leaves(each)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    return [] if value is None else [str(value)]


def wanted(talks: list[Talk], settings: Mapping[str, Any]) -> int:
    """How many samples a user's talks give."""
    if settings.get("oneSamplePerUser"):
        return len(last_one(talks))
    found = len(candidates(talks, expand=bool(settings.get("expand"))))
    return min(found, settings.get("maxSamplesPerUser") or found)


def agrees(
    samples: list[Seen],
    talks: list[Talk],
    settings: Mapping[str, Any],
    *,
    held_out: Iterable[Seen] = (),
    history: bool = True,
) -> None:
    """Assert that the samples of one user's talks are what they may be, and show what they must show.

    `held_out` are the user's samples that validate.
    """
    judged = [each for _, each in _possible(list(held_out), talks, settings, one_talk=False)]
    groups = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(sample)
    maybe = {
        group: [
            at
            for at, talk in enumerate(talks)
            if (found := [each for _, each in _possible(ours, [talk], settings)])
            and (not history or _past(ours) == [past_of(talk, talks, settings, found, judged)])
            and all(_persona(sample, talk, settings) for sample in ours)
        ]
        for group, ours in groups.items()
    }
    for group, ats in maybe.items():
        assert ats, f"no talk of the user gives {groups[group]}"
    assert len(_matched(maybe)) == len(groups)


def _past(ours: list[Seen]) -> list[list[str]]:
    """The histories that samples show, each once."""
    found: list[list[str]] = []
    for sample in ours:
        if sample.section("History") not in found:
            found.append(sample.section("History"))
    return found


def _possible(
    ours: list[Seen], talks: list[Talk], settings: Mapping[str, Any], *, one_talk: bool = True
) -> list[tuple[Seen, Candidate]]:
    """Each sample with the candidate that it is; with `one_talk`, none if they are not all there."""
    left = candidates(talks, expand=bool(settings.get("expand")))
    if settings.get("oneSamplePerUser"):
        left = [each for each in left if each.last]
    found = []
    for sample in ours:
        said = ((*sample.turns, (MINE, sample.target)), sample.section("Dialogue"))
        each = next((each for each in left if _all_of(each, settings, bool(sample.sections)) == said), None)
        if each is not None:
            left.remove(each)
            found.append((sample, each))
    assert one_talk or len(found) == len(ours)
    return found if len(found) == len(ours) else []


def _matched(maybe: Mapping[int, list[int]]) -> dict[int, int]:
    """Talks to groups, each talk at most once, for as many groups as can be."""
    of_talk: dict[int, int] = {}

    def place(group: int, tried: set[int]) -> bool:
        for at in maybe[group]:
            if at not in tried:
                tried.add(at)
                if at not in of_talk or place(of_talk[at], tried):
                    of_talk[at] = group
                    return True
        return False

    for group in maybe:
        place(group, set())
    return of_talk


def _all_of(
    sample: Candidate, settings: Mapping[str, Any], has_system: bool
) -> tuple[tuple[Turn, ...], list[str]]:
    turns, lines = must_show(sample, settings)
    if not has_system and (not turns or turns[0][0] == MINE):
        turns = ((OTHER, "…"), *turns)  # somebody must speak before the assistant
    return (*turns, (MINE, sample.target)), lines


def _persona(sample: Seen, talk: Talk, settings: Mapping[str, Any]) -> bool:
    detailed = settings.get("promptStyle") == "detailed"
    profile = "profile" in shows(settings)
    parts = (
        ("Profile", leaves(talk.profile) if profile else []),
        ("Personality", leaves(talk.personality) if profile and detailed else []),
        ("Task", [talk.task] if talk.task else []),
    )
    shown = [("\n".join(sample.section(name)), texts) for name, texts in parts]
    as_it_is = all(bool(text) == bool(texts) and all(each in text for each in texts) for text, texts in shown)
    return as_it_is and bool(sample.section("")) is detailed

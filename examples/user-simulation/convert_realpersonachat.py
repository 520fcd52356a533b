"""RealPersonaChat (github.com/nu-dialogue/real-persona-chat) to records of user simulation.

    python convert_realpersonachat.py real_persona_chat users.jsonl

The folder holds `interlocutors.json` and `dialogues/*.json`. Each line of the result is one person with all
of their dialogues: the other one's turns are what they answer, their last turn is what is to be said next.
Then, in a FineTuneJob: `datasets: [{uri: s3://bucket/users.jsonl, userSimulation: {expand: true}}]`.
"""

import json
import sys
from pathlib import Path


def item_of(dialogue, person):
    """One dialogue as this person has it, up to their last turn; None if they say nothing."""
    said = dialogue["utterances"]
    mine = [at for at, each in enumerate(said) if each["interlocutor_id"] == person]
    if not mine:
        return None
    last = said[mine[-1]]
    return {
        "context": [
            {"source": each["interlocutor_id"], "content": each["text"]} for each in said[: mine[-1]]
        ],
        "continuation": last["text"],
        "timestamp": last["timestamp"],
    }


def record_of(person, about, dialogues):
    """A person with profile and dialogues; turns are theirs where the source is the profile's name."""
    items = [item_of(dialogue, person) for dialogue in dialogues if person in dialogue["interlocutors"]]
    profile = {"name": person, "persona": about["persona"], **about["demographic_information"]}
    return {
        "user_hash": f"realpersonachat-{person}",
        "user": {"profile": profile, "personality": {"structured": about["personality"]}},
        "task": {
            "description": "Chat with somebody you have just met.",
            "task_behavior_collections": [{"type": "chat", "data": [item for item in items if item]}],
        },
    }


def main(folder, output):
    """Write one line a person."""
    files = sorted((folder / "dialogues").glob("*.json"))
    dialogues = [json.loads(file.read_text("utf-8")) for file in files]
    people = json.loads((folder / "interlocutors.json").read_text("utf-8"))
    present = sorted({person for dialogue in dialogues for person in dialogue["interlocutors"]})
    with output.open("w", encoding="utf-8") as file:
        for person in present:
            file.write(json.dumps(record_of(person, people[person], dialogues), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

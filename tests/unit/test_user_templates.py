"""User simulation with templates that have no place for a system message, or another one than its own."""

from __future__ import annotations

import pytest
from tests.cases import each
from tests.fixtures.lossy_templates import composed, streamed
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import load_family, with_template
from tests.support import write_jsonl

from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.prepare import prepare
from tunesmith.errors import DataError

pytestmark = pytest.mark.engine

SHOWN = ("name: Mia", "Plan a trip.", "I would go by train.")
SAID = ("By train.", "I would go by train.")
TURNS = [{"source": "bot", "content": "Where to?"}, {"source": "user", "content": "To the lake."},
         {"source": "bot", "content": "How?"}]  # fmt: skip
EARLIER = {"context": [{"source": "bot", "content": "Any wish?"}], "continuation": "I would go by train."}
ITEMS = [EARLIER, {"context": TURNS, "continuation": "By train."}]
RECORD = {"user": {"profile": {"name": "Mia"}},
          "task": {"description": "Plan a trip.",
                   "task_behavior_collections": [{"type": "a", "data": ITEMS}]}}  # fmt: skip


def prepared(folder, tokenizer, settings):
    place = write_jsonl(folder / "users.jsonl", [RECORD])
    datasets = [{"uri": f"file://{place}", "userSimulation": {"useHistory": True, **settings}}]
    return prepare(
        small_spec({"maxLength": 1000}, datasets=datasets), tokenizer, StorageOptions(), folder / "out"
    )


@each("template", [streamed("drops system"), composed("drops system")], ids=["streamed", "filtered"])
@each("settings", [{}, {"expand": True}, {"promptStyle": "flat"}], ids=["target", "expand", "flat"])
def test_without_a_system_role_there_is_no_sample(tmp_path_factory, template, settings) -> None:
    """Profile, task and history would be lost."""
    with pytest.raises(DataError, match=r"users.jsonl.*leaves out message 1 \('.*of role system"):
        prepared(tmp_path_factory.mktemp("users"), with_template("chatml", template), settings)


@each(
    "settings",
    [{}, {"expand": True}, {"promptStyle": "flat", "expand": True}],
    ids=["target", "expand", "flat"],
)
@each(
    "name", ["mistral3", "first", "last", "every"], ids=["mistral3", "first-user", "last-user", "every-user"]
)
def test_a_system_message_in_a_user_turn_is_in_every_prompt(tmp_path_factory, name, settings) -> None:
    places = {"first": "the first turn", "last": "the last user turn", "every": "every user turn"}
    tokenizer = (
        load_family(name)
        if name == "mistral3"
        else with_template("chatml", composed(f"system into {places[name]}"))
    )
    done = prepared(tmp_path_factory.mktemp("users"), tokenizer, settings)
    samples = [tokenizer.decode(done.train.sample(at).ids) for at in range(len(done.train))]
    assert len(samples) == (3 if "expand" in settings else 2)
    assert [text for text in samples if not all(part in text for part in SHOWN)] == []
    assert all(sum(said + "<" in text for text in samples) == 1 for said in SAID)

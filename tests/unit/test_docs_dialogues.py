"""What docs/dialogues.md says of seeds is how they are read."""

import json

from tests.unit.test_docs import ROOT, blocks

from tunesmith.data.formats.seeds import seed_from
from tunesmith.plan.growth import GROWTH

PAGE = ROOT / "docs/dialogues.md"


def test_the_seeds_of_the_page_are_seeds():
    block, tools = blocks(PAGE, "json")
    found = [seed_from(json.loads(line)) for line in block.splitlines()]
    offered = seed_from(json.loads(tools))
    assert (bool(offered.tools), len(offered.rounds[0].steps)) == (True, 2)
    assert [len(seed.rounds) for seed in found] == [1, 1, 1, 2, 2]
    assert [seed.rounds[-1].correction is None for seed in found] == [False, True, False, False, False]


def test_the_page_names_every_field_that_may_grow():
    text = PAGE.read_text().partition("## More rounds, more seeds")[2]
    assert all(f"`{field}" in text for field in GROWTH["DialogueGenJob"].fields if "Bad" not in field)

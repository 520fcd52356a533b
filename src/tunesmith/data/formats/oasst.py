"""Open Assistant message trees: `{message_tree_id, tree_state, prompt: {text, role, replies: [...]}}`.

How "every root-to-leaf path of the best-ranked replies" is read:

- Among an assistant's replies to one message, those with the lowest `rank` (0 is best) are followed, the
  others are not. If no reply has a rank, all are followed; one without a rank beside ranked ones is not.
- Among a prompter's replies all are followed, whatever their rank: they are different questions.
- A message that is `deleted`, or failed its review (`review_result` false), is left out with all below it,
  before the best rank is determined.
- A path that ends with a question ends at the reply before it; it counts only if no question about that reply
  was answered, so that no path is a prefix of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith.data.formats.fields import Fields, fields_of, plain, refuse_in_turn, text_field
from tunesmith.data.formats.weights import not_to_learn, weight_of
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message

_ROLES = {"prompter": "user", "assistant": "assistant"}

Node = Mapping[str, Any]


def is_tree(value: Mapping[str, Any]) -> bool:
    """Return whether the record is a message tree; one with an OpenAI-like `prompt` string is not."""
    return isinstance(plain(value).get("prompt"), Mapping)


def tree_paths(value: Mapping[str, Any]) -> list[list[Message]]:
    """Return the paths, depth first. Raises RecordProblem if there are none, or role or text is missing."""
    record = fields_of(value)
    root = record["prompt"]
    found = list(_paths(record, root, "prompt")) if _is_usable(root) else []
    if not found:
        raise RecordProblem("the tree has no assistant reply")
    return found


def _paths(record: Fields, node: Node, name: str) -> Iterator[list[Message]]:
    fields = record.part(node, "prompt" if name == "prompt" else "prompt.replies[]")
    fields.know("rank", "deleted", "review_result", "replies")
    turn = _message(fields, name)
    goes_on = False
    for child, child_name in _followed(node, name):
        for path in _paths(record, child, child_name):
            goes_on = True
            yield [turn, *path]
    if turn.role == "assistant" and not goes_on:
        yield [turn]


def _message(node: Fields, name: str) -> Message:
    refuse_in_turn(node, name)
    role = text_field(node, "role", name)
    if role not in _ROLES:
        raise RecordProblem(f'{name}.role is "{role}"; a message tree has prompter and assistant')
    text, weight = text_field(node, "text", name), weight_of(node, name)
    if role == "assistant" and weight != 0 and not text.strip():
        raise RecordProblem(f"{name}.text is empty")
    if role != "assistant" and weight:
        raise not_to_learn(name, role)
    return Message(_ROLES[role], text, 1.0 if weight is None or role != "assistant" else weight)


def _followed(node: Node, name: str) -> Sequence[tuple[Node, str]]:
    """Yield the replies that paths go through, each with its name for messages."""
    replies = node.get("replies") or []
    if not isinstance(replies, list):
        raise RecordProblem(f"{name}.replies is not a list")
    usable = [(reply, f"{name}.replies[{index}]") for index, reply in enumerate(replies) if _is_usable(reply)]
    ranks = {at: _rank(reply, at) for reply, at in usable if reply.get("role") == "assistant"}
    best = min((rank for rank in ranks.values() if rank is not None), default=None)
    return [(reply, at) for reply, at in usable if at not in ranks or ranks[at] == best]


def _is_usable(node: object) -> bool:
    if not isinstance(node, Mapping):
        raise RecordProblem("a message of the tree is not an object")
    return not node.get("deleted") and node.get("review_result") is not False


def _rank(node: Node, name: str) -> int | None:
    rank = node.get("rank")
    if rank is not None and type(rank) is not int:
        raise RecordProblem(f"{name}.rank is {rank!r}, not a whole number")
    return rank

"""Seeds, a plan and clients who say what a script says: dialogues without endpoints."""

import asyncio
import hashlib
import json

from tunesmith.api.dialogue import RoleSpec
from tunesmith.data.formats.seeds import SeedRound
from tunesmith.dialogue.replies import ServerReply
from tunesmith.dialogue.rounds import DialoguePlan
from tunesmith.dialogue.state import ROLES, PlannedSeed, Role
from tunesmith.dialogue.templates import LANGUAGES, Templates, own_template
from tunesmith.dialogue.turns import Completion, call_of_try

TEMPLATES = Templates({(role, each): own_template(role, each) for role in ROLES for each in LANGUAGES})


def planned(name, key, *texts, seed=None):
    """A seed of one round: question, answer, correction."""
    return PlannedSeed(name, key, (SeedRound(*texts),), seed)


def seeds(number, correction="Better {at}.", answer="Answer {at}."):
    return [
        planned(
            f"r1-{at + 1:06}",
            f"key {at}",
            f"Question {at}?",
            answer.format(at=at),
            correction and correction.format(at=at),
        )
        for at in range(number)
    ]


def plan(rounds=3, max_messages=16, fingerprint="f", endpoint="gemini"):
    roles = {role: RoleSpec(endpoint=endpoint, temperature=0.5, max_tokens=50) for role in ROLES}
    return DialoguePlan(rounds, max_messages, roles, TEMPLATES, fingerprint)


class Rows(dict):
    """A journal in memory, that keeps only what JSON keeps. `written` has the keys in their order."""

    def __init__(self, *args):
        super().__init__(*args)
        self.written, self.flushed = [], []

    def append(self, key, record, *, durable=False):
        if key in self:
            return False
        self[key] = json.loads(json.dumps(record))
        self.written.append(key)
        return True

    def flush(self):
        self.flushed = [key for key in self.written if "/" in key]

    def scan(self):
        return iter([(key, lambda row=row: row) for key, row in self.items()])

    def tries(self):
        """The replies that are known, by key."""
        return {key: row for key, row in self.items() if call_of_try(key)}


class ScriptedClient:
    """Says `<role> <round> of <seed>` after `seconds`; `script` may say something else, or raise."""

    def __init__(self, script=lambda call: None, seconds=lambda call: 1.0):
        self.script, self.seconds = script, seconds
        self.calls, self.under_way, self.most, self.error, self.called_off = [], 0, 0, None, 0

    async def call(self, call, tries):
        if self.error is not None:
            raise self.error
        self.calls.append(call)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.seconds(call))
        except asyncio.CancelledError:
            self.called_off += 1
            raise
        finally:
            self.under_way -= 1
        said = self.script(call)
        if isinstance(said, BaseException):
            raise said
        return said or Completion(text_of(call), prompt_tokens=100, completion_tokens=10, cost=5, seconds=1.0)

    def stop(self, error):
        self.error = self.error or error


def text_of(call):
    return f"{call.role} {call.round} of {call.seed}."


def everyone(client):
    return dict.fromkeys(ROLES, client)


class Server:
    """An endpoint whose replies depend on the request and on how many of this request's replies are known.

    `known` counts the replies that are in the journal, so a reply that a kill has swallowed comes again.
    """

    name = "gemini"

    def __init__(self, reply_to, known, seconds=0.4):
        self.reply_to, self.known, self.seconds, self.sent = reply_to, known, seconds, []

    def request(self, messages, temperature, max_tokens, tools=""):
        from tunesmith.dialogue.replies import ChatRequest

        body = {"messages": [dict(each) for each in messages], "max_tokens": max_tokens}
        return ChatRequest(body, max_tokens, 20, 500)

    async def send(self, request):
        await asyncio.sleep(self.seconds)
        digest = digest_of(request.body)
        number = self.known(digest)
        self.sent.append((digest, number))
        return self.reply_to(digest, number)


def digest_of(body):
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def completion(text, finish="stop"):
    body = {
        "choices": [{"message": {"content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 7},
    }
    return ServerReply(200, json.dumps(body), {}, 0.4)


def refusal(code=500, message="Try later."):
    return ServerReply(code, json.dumps({"error": {"message": message}}), {}, 0.1)


def roles_of(calls, seed):
    return [(call.round, Role(call.role)) for call in calls if call.seed == seed]

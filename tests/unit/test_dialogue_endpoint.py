"""One request to a server: what is sent, what comes back, and where the key never is."""

import asyncio
import json
import logging

import httpx2
import pytest
from hostile import RULES
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.unit.endpoint_world import run

from tunesmith import names
from tunesmith.api.dialogue import OpenAIEndpoint
from tunesmith.dialogue.answers import read
from tunesmith.dialogue.endpoint import LONGEST_BODY, STRUCK, Endpoint
from tunesmith.dialogue.replies import Answer, Fault, Lost, ServerReply, Unsent, Unusable
from tunesmith.errors import EndpointError, PermanentError

KEY = "sk-Very/Secret+1234567890"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Wie geht's? 你好"}]
BODY = {"choices": [{"message": {"content": "Gut."}, "finish_reason": "stop"}]}


def spec(base="https://host.example/v1", **more):
    return OpenAIEndpoint.model_validate({"baseUrl": base, "model": "some-model", **more})


def endpoint(handler, key=KEY, timeout=120, **more):
    return Endpoint("gemini", spec(**more), key, timeout=timeout, transport=httpx2.MockTransport(handler))


def send(handler, **more):
    """The reply, the request that the server saw (or None), and what it means; and how long it took."""
    seen = []

    async def handle(request):
        seen.append(request)
        answer = handler(request)
        return await answer if asyncio.iscoroutine(answer) else answer

    async def main():
        async with endpoint(handle, **more) as one:
            asked = one.request(MESSAGES, 0.7, 200)
            reply = await one.send(asked)
            return reply, asked

    (reply, asked), seconds = run(main())
    return reply, seen, asked, seconds


def ok(request):
    return httpx2.Response(200, json=BODY)


# What is sent.


def test_a_request_holds_what_the_manifest_says_and_nothing_else():
    extra = {"top_p": 0.9, "extra_body": {"google": {"thinking_config": {"thinking_budget": 0}}}}
    _, (seen,), asked, _ = send(ok, extraBody=extra)
    assert json.loads(seen.content) == asked.body == {
        "model": "some-model",
        "messages": MESSAGES,
        "temperature": 0.7,
        "max_tokens": 200,
        "stream": False,
        **extra,
    }  # fmt: skip
    assert seen.method == "POST"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://host.example/v1", "https://host.example/v1/chat/completions"),
        ("https://host.example/v1/", "https://host.example/v1/chat/completions"),
        ("https://host.example", "https://host.example/chat/completions"),
        ("http://[::1]:8000/v1beta/openai", "http://[::1]:8000/v1beta/openai/chat/completions"),
        ("https://host.example/d/x?api-version=1", "https://host.example/d/x/chat/completions?api-version=1"),
    ],
)
def test_addresses(base, url):
    _, (seen,), _, _ = send(ok, base=base)
    assert str(seen.url) == url


def test_no_key_no_header():
    _, (seen,), _, _ = send(ok, key=None)
    assert "authorization" not in seen.headers


def test_a_line_end_after_the_key_is_not_sent():
    _, (seen,), _, _ = send(ok, key=f"{KEY}\n")
    assert seen.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "key", ["two words of a key", "line\nend-in-a-key", "schlüssel-lang", "nul\0nul-in-a-key"]
)
def test_a_key_that_no_header_can_hold_is_named_by_its_field_only(key):
    with pytest.raises(EndpointError) as caught:
        endpoint(ok, key=key)
    assert str(caught.value).startswith("endpoints.gemini.openai.apiKeySecretRef: ")
    assert key not in str(caught.value)


REFUSAL = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        "param": "max_tokens",
    }
}


def newer(request):
    """A server that takes max_completion_tokens alone."""
    return httpx2.Response(400, json=REFUSAL) if "max_tokens" in json.loads(request.content) else ok(request)


def asked_twice(handler, **more):
    """What a server was sent for two requests of which the second was made before the first was sent."""
    seen = []

    def handle(request):
        seen.append(json.loads(request.content))
        return handler(request)

    async def main():
        async with endpoint(handle, **more) as one:
            requests = [one.request(MESSAGES, 0.7, 200) for _ in range(2)]
            replies = [await one.send(request) for request in requests]
            return replies, one.request(MESSAGES, 0.7, 200)

    (replies, third), _ = run(main())
    return replies, seen, third


def fields_of(body):
    return [name for name in ("max_tokens", "max_completion_tokens") if name in body]


def test_the_field_that_a_server_wants_is_learned_once_for_all_requests():
    replies, seen, third = asked_twice(newer)
    assert [reply.status for reply in replies] == [200, 200]
    other = ["max_completion_tokens"]
    assert [fields_of(body) for body in seen] == [["max_tokens"], other, other]
    assert fields_of(third.body) == other
    assert third.max_tokens == 200
    assert seen[1]["max_completion_tokens"] == 200


@pytest.mark.parametrize("named", ["max_tokens", "max_completion_tokens"])
def test_a_field_that_the_manifest_names_is_sent_whatever_the_server_says(named):
    replies, seen, _ = asked_twice(lambda request: httpx2.Response(400, json=REFUSAL), maxTokensField=named)
    assert [reply.status for reply in replies] == [400, 400]
    assert [fields_of(body) for body in seen] == [[named], [named]]


def test_a_refusal_of_something_else_is_not_sent_again():
    other = httpx2.Response(400, json={"error": {"message": "max_tokens is above the model's 64"}})
    _, seen, _ = asked_twice(lambda request: other)
    assert [fields_of(body) for body in seen] == [["max_tokens"]] * 2


def test_no_temperature_where_the_manifest_says_so():
    _, seen, asked = asked_twice(ok, sendTemperature=False)
    assert [body.get("temperature", "absent") for body in [*seen, asked.body]] == ["absent"] * 3


def test_an_address_whose_port_there_is_not():
    with pytest.raises(EndpointError, match=r"^endpoints\.gemini\.openai\.baseUrl: "):
        endpoint(ok, base="http://host:99999/v1")


@pytest.mark.parametrize("base", ["http://host:port/v1", "http://[::1/v1"])
def test_an_address_that_is_none_is_no_manifest(base):
    with pytest.raises(ValidationError):
        spec(base=base)


ONE = endpoint(ok)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_the_most_a_prompt_can_take_is_never_less_than_its_bytes(texts):
    texts = [text * 100 for text in texts]
    asked = ONE.request([{"role": "user", "content": text} for text in texts], 0.7, 200)
    assert asked.most_prompt_tokens >= sum(len(text.encode()) for text in texts) + 16 * len(texts)
    assert 0 < asked.prompt_tokens <= asked.most_prompt_tokens


# What comes back.


def test_a_reply_comes_back_raw_and_can_be_journalled():
    reply, _, asked, _ = send(
        lambda _: httpx2.Response(200, json=BODY, headers={"Set-Cookie": "a", "Retry-After": "1"})
    )
    assert json.loads(reply.text) == BODY
    assert (reply.status, reply.trouble, reply.sent, dict(reply.headers)) == (
        200,
        "",
        True,
        {"retry-after": "1"},
    )
    assert ServerReply(**json.loads(json.dumps(reply.record()))) == reply
    assert read(reply, asked, "e") == Answer("Gut.", False, read(reply, asked, "e").usage)


def raising(error):
    def handler(request):
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ConnectError("refused"), Unsent),
        (httpx2.ConnectTimeout("too late"), Unsent),
        (UnicodeError("label too long"), Unsent),
        (httpx2.ReadError("reset"), Lost),
        (httpx2.WriteError("reset"), Lost),
        (httpx2.RemoteProtocolError("peer closed connection without sending complete message body"), Lost),
        (httpx2.DecodingError("not gzip"), Lost),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_a_network_does_is_an_outcome(error, kind):
    reply, _, asked, _ = send(raising(error))
    outcome = read(reply, asked, "e")
    assert isinstance(outcome, kind)
    assert str(error) in outcome.why


def test_no_answer_in_time_is_given_up():
    async def slow(request):
        await asyncio.sleep(1000)
        return ok(request)

    reply, _, asked, seconds = send(slow, timeout=30)
    assert read(reply, asked, "e") == Lost("No response within 30 seconds.")
    assert seconds == pytest.approx(30)


class Trickle(httpx2.AsyncByteStream):
    """A byte a second, for ever."""

    async def __aiter__(self):
        while True:
            await asyncio.sleep(1)
            yield b" "


def test_a_reply_that_trickles_is_given_up_too():
    reply, _, _, seconds = send(lambda _: httpx2.Response(200, stream=Trickle()), timeout=30)
    assert reply.trouble == "No response within 30 seconds."
    assert seconds == pytest.approx(30)


def test_a_reply_without_end_is_cut():
    reply, _, asked, _ = send(lambda _: httpx2.Response(200, content=b"x" * (LONGEST_BODY + 9)))
    assert len(reply.text) == LONGEST_BODY
    outcome = read(reply, asked, "e")
    assert isinstance(outcome, Unusable)
    assert (outcome.fault, "longer" in outcome.why) == (Fault.MALFORMED, True)


def test_bytes_that_are_no_text_are_kept_as_far_as_they_are():
    reply, _, _, _ = send(lambda _: httpx2.Response(200, content=b'{"a": "\xff"}'))
    assert reply.text == '{"a": "\ufffd"}'


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status):
    elsewhere = {"Location": "https://evil.example/v1/chat/completions"}
    reply, seen, asked, _ = send(lambda _: httpx2.Response(status, headers=elsewhere))
    assert [request.url.host for request in seen] == ["host.example"]
    assert read(reply, asked, "gemini").complaint.startswith("endpoints.gemini.openai.baseUrl: ")


def test_a_servers_own_word_in_a_path_leads_to_no_other_part_of_it(monkeypatch):
    rules = {**RULES, "endpoints": ["https://host.example/v1"]}
    monkeypatch.setenv(names.ENV_RULES, json.dumps(rules))
    one = endpoint(ok)
    assert asyncio.run(one.exchange("GET", "batches/b1")).status == 200
    for word in ("../../admin", "a/../../../admin", "%2e%2e/%2e%2e/admin", "..%2f..%2fadmin"):
        with pytest.raises(PermanentError, match="may not use the endpoint"):
            asyncio.run(one.exchange("GET", f"files/{word}"))


def test_many_requests_at_once_use_a_connection_each_and_then_the_same_again():
    async def main():
        async def slow(request):
            await asyncio.sleep(1)
            return ok(request)

        async with endpoint(slow) as one:
            asked = one.request(MESSAGES, 0.7, 200)
            for _ in range(3):
                replies = await asyncio.gather(*(one.send(asked) for _ in range(20)))
                assert {reply.status for reply in replies} == {200}
            cancelled = asyncio.create_task(one.send(asked))
            await asyncio.sleep(0.5)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            return len(one._clients), len(one._free)

    assert run(main())[0] == (20, 20)


# The key.


def leaking(request):
    said = {"error": {"message": f"Incorrect API key provided: {KEY}. {json.dumps(KEY)}"}}
    return httpx2.Response(401, json=said, headers={"Retry-After": KEY, "X-RateLimit-Reset": KEY})


@pytest.mark.parametrize(
    "handler", [ok, leaking, raising(httpx2.ConnectError(f"to {KEY}")), raising(httpx2.ReadError(KEY))],
    ids=["ok", "leaking", "no-connection", "broken"],
)  # fmt: skip
def test_the_key_is_nowhere(handler, caplog):
    caplog.set_level(logging.DEBUG)
    reply, _, asked, _ = send(handler)
    shown = [json.dumps(reply.record()), repr(reply), repr(asked), caplog.text]
    try:
        shown.append(repr(read(reply, asked, "gemini")))
    except EndpointError as error:
        shown += [str(error), repr(error)]
    one = endpoint(handler)
    shown += [repr(one), str(one), repr(vars(spec()))]
    assert not any(KEY in text or KEY[5:-5] in text for text in shown)
    if handler is leaking:
        assert STRUCK in reply.text


def test_a_word_that_stands_for_no_key_is_left_in_replies():
    body = {"choices": [{"message": {"content": "The box is EMPTY."}}]}
    reply, _, _, _ = send(lambda _: httpx2.Response(200, json=body), key="EMPTY")
    assert json.loads(reply.text) == body

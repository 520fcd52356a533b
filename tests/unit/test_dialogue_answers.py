"""What replies of OpenAI-compatible servers mean, in the words of several of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.dialogue.answers import estimate_tokens, read, same_model
from tunesmith.dialogue.replies import (
    Answer,
    ChatRequest,
    Denied,
    Fault,
    Lost,
    Mark,
    Refused,
    ServerReply,
    Unsent,
    Unusable,
    Usage,
)
from tunesmith.dialogue.retry_after import LONGEST, kept_headers, retry_after

REQUEST = ChatRequest({"model": "m"}, max_tokens=200, prompt_tokens=100, most_prompt_tokens=900)
USAGE = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}
UNKNOWN = Usage(900, 200, estimated=True)


def reply(body, status=200, **headers):
    text = body if isinstance(body, str) else json.dumps(body)
    return ServerReply(status, text, {name.replace("_", "-"): value for name, value in headers.items()}, 0.5)


def meaning(body, status=200, **headers):
    return read(reply(body, status, **headers), REQUEST, "gemini")


def completion(content="Hello.", finish="stop", usage=USAGE, **message):
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": content, **message}}]}
    body["choices"][0]["finish_reason"] = finish
    return body | ({"usage": usage} if usage is not None else {})


# Answers.


@pytest.mark.parametrize(
    ("body", "text", "truncated"),
    [
        pytest.param(completion(), "Hello.", False, id="plain"),
        pytest.param(completion(" Hello.\n"), "Hello.", False, id="stripped"),
        pytest.param(completion(finish="length"), "Hello.", True, id="openai-length"),
        pytest.param(completion(finish="MAX_TOKENS"), "Hello.", True, id="google-length"),
        pytest.param(completion(finish="eos"), "Hello.", False, id="together-eos"),
        pytest.param(completion(finish="end_turn"), "Hello.", False, id="anthropic-end"),
        pytest.param(completion(finish="stop_sequence"), "Hello.", False, id="stop-sequence"),
        pytest.param(completion(finish="max_output_tokens"), "Hello.", True, id="other-cap"),
        pytest.param("\ufeff" + json.dumps(completion()), "Hello.", False, id="byte-order-mark"),
        pytest.param("\n\ufeff\ufeff" + json.dumps(completion()), "Hello.", False, id="byte-order-marks"),
        pytest.param(completion(finish="FINISH_REASON_STOP"), "Hello.", False, id="google-long-stop"),
        pytest.param(completion() | {"error": {}, "errors": []}, "Hello.", False, id="no-errors"),
        pytest.param(completion() | {"error": None}, "Hello.", False, id="no-error"),
        pytest.param(completion() | {"error": {"code": None}}, "Hello.", False, id="empty-error"),
        pytest.param(completion(refusal=None), "Hello.", False, id="null-refusal"),
        pytest.param(
            completion([{"type": "text", "text": "Hel"}, {"type": "image"}, {"type": "text", "text": "lo."}]),
            "Hello.",
            False,
            id="parts",
        ),
        pytest.param(completion("你好"), "你好", False, id="chinese"),
    ],
)
def test_answers(body, text, truncated):
    assert meaning(body) == Answer(text, truncated, Usage(12, 7))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 7}, Usage(12, 7)),
        # Gemini's thoughts are paid, and only in the total.
        ({"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 100}, Usage(12, 88)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage(100, 2, estimated=True)),
        ({"prompt_tokens": 12, "completion_tokens": 0, "total_tokens": 12}, Usage(100, 2, estimated=True)),
        ({"prompt_tokens": 0, "completion_tokens": 7, "total_tokens": 7}, Usage(100, 2, estimated=True)),
        # Thoughts that are counted beside the reply, and inside of it.
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 7,
                "completion_tokens_details": {"reasoning_tokens": 50},
            },
            Usage(12, 57),
        ),
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 57,
                "completion_tokens_details": {"reasoning_tokens": 50},
            },
            Usage(12, 57),
        ),
        (
            {"prompt_tokens": 12, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 8}},
            Usage(12, 7, cached_tokens=8),
        ),
        (
            {"prompt_tokens": 12, "completion_tokens": 7, "prompt_cache_hit_tokens": 8},
            Usage(12, 7, cached_tokens=8),
        ),
        (
            {"prompt_tokens": 12, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 90}},
            Usage(12, 7, cached_tokens=12),
        ),
        (None, Usage(100, 2, estimated=True)),
        ({}, Usage(100, 2, estimated=True)),
        ({"prompt_tokens": "12", "completion_tokens": 7}, Usage(100, 2, estimated=True)),
        ({"prompt_tokens": -1, "completion_tokens": 7}, Usage(100, 2, estimated=True)),
        ({"prompt_tokens": True, "completion_tokens": 7}, Usage(100, 2, estimated=True)),
        ({"prompt_tokens": 1e300, "completion_tokens": 10**30}, Usage(100, 2, estimated=True)),
        ([], Usage(100, 2, estimated=True)),
    ],
)
def test_usage(usage, expected):
    assert meaning(completion(usage=usage)).usage == expected


@each(
    ("body", "reasoning"),
    [
        (completion("<think>\nHm.\n</think>\n\nHello."), "Hm."),
        (completion("Hm.</think>Hello."), "Hm."),
        (completion(reasoning_content="Hm."), "Hm."),
        (completion(reasoning="Hm."), "Hm."),
        (completion([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Hello."}]), "Hm."),
        (completion("<think>So.</think>Hello.", reasoning_content="Hm."), "Hm.\n\nSo."),
        (completion("Hm.</thinking>Hello."), "Hm."),
        (completion("<Think>Hm.</Think>Hello."), "Hm."),
        (completion([{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "Hello."}]), "Hm."),
        (completion([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                     {"type": "output_text", "text": "Hello."}]), "Hm."),
        (completion([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
                     {"type": "text", "text": "Hello."}]), "Hm."),
        (completion(reasoning_details=[{"type": "reasoning.text", "text": "Hm."}]), "Hm."),
        (completion(reasoning={"content": "Hm."}), "Hm."),
    ],
)  # fmt: skip
def test_thoughts_are_kept_apart(body, reasoning):
    assert meaning(body) == Answer("Hello.", False, Usage(12, 7), reasoning)


@each(
    ("body", "marks"),
    [
        (completion() | {"model": "m"}, ()),
        (completion() | {"model": "other"}, (Mark.OTHER_MODEL,)),
        (completion("Hel\ufffdlo."), (Mark.REPLACEMENT,)),
        (completion("half \ud83d pair"), (Mark.REPLACEMENT,)),
        (completion("a \U0001f600 pair"), ()),
        (completion("word " * 500), (Mark.OVER_CAP,)),
        (completion("word " * 200), ()),
    ],
)
def test_odd_answers_are_marked(body, marks):
    assert meaning(body).marks == marks


@each(
    ("asked", "named", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o-2024-08-06", "gpt-4o", True),
        ("gpt-4", "gpt-4-0613", True),
        ("openai/gpt-4o", "gpt-4o", True),
        ("Qwen/Qwen3-0.6B", "qwen3-0.6b", True),
        ("gemini-2.0-flash", "models/gemini-2.0-flash-001", True),
        ("mistral-large-latest", "mistral-large-2411", True),
        ("llama3", "llama3:latest", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4", "gpt-4.1", False),
        ("gpt-5", "gpt-4", False),
        ("claude-3", "claude-3-5", False),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13", False),
        ("large", "small", False),
    ],
)
def test_whether_the_model_that_answers_is_the_one_that_was_asked(asked, named, same):
    assert same_model(asked, named) == same


# Of no use, and paid for.

BLOCKED = {"choices": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usage": USAGE}


@each(
    ("body", "fault", "says"),
    [
        pytest.param(completion("", "content_filter"), "blocked", "content_filter", id="openai-filter"),
        pytest.param(
            completion("Half", "content_filter"), "blocked", "content_filter", id="filter-after-half"
        ),
        pytest.param(
            completion(None, "content_filter: RECITATION"), "blocked", "recitation", id="gemini-recitation"
        ),
        pytest.param(completion(None, "PROHIBITED_CONTENT"), "blocked", "prohibited", id="gemini-prohibited"),
        pytest.param(completion(None, "SAFETY"), "blocked", "safety", id="gemini-safety"),
        pytest.param(BLOCKED, "blocked", "PROHIBITED_CONTENT", id="gemini-prompt"),
        pytest.param(BLOCKED | {"choices": None}, "blocked", "PROHIBITED_CONTENT", id="gemini-null-choices"),
        pytest.param(completion(None, refusal="I will not."), "blocked", "I will not.", id="openai-refusal"),
        pytest.param(completion("No.", refusal="I will not."), "blocked", "I will not.", id="half-refusal"),
        pytest.param(
            completion([{"type": "text", "text": "Half"}, {"type": "refusal", "refusal": "I will not."}]),
            "blocked",
            "I will not.",
            id="refusal-among-parts",
        ),
        pytest.param(
            completion("Let me.", tool_calls=[{"id": "1"}]), "interrupted", "a tool", id="stop-at-a-tool"
        ),
        pytest.param(completion(error={"message": "Gone."}), "interrupted", "Gone.", id="error-in-message"),
        pytest.param(completion() | {"error": ["Gone."]}, "interrupted", "Gone.", id="error-as-a-list"),
        pytest.param(completion() | {"error": True}, "interrupted", "failed", id="error-as-a-flag"),
        pytest.param(completion() | {"error": 502}, "interrupted", "502", id="error-as-a-number"),
        pytest.param(
            completion() | {"errors": [{"message": "Gone."}]}, "interrupted", "Gone.", id="several-errors"
        ),
        pytest.param(
            completion([{"type": "text", "text": "Half"}, "rest"]), "malformed", "", id="part-without-a-type"
        ),
        pytest.param(
            completion([{"type": "text", "text": "Half"}, {"type": "aside", "text": "rest"}]),
            "malformed",
            "",
            id="part-of-an-unknown-type",
        ),
        pytest.param(completion("x", "content-filter"), "blocked", "filter", id="filter-with-a-dash"),
        pytest.param(completion(""), "empty", "stop", id="empty"),
        pytest.param(completion(" \n\t"), "empty", "stop", id="blank"),
        pytest.param(completion(None, "length"), "empty", "length", id="all-spent-on-thoughts"),
        pytest.param(completion(None, "tool_calls"), "interrupted", "tool_calls", id="tool-calls"),
        pytest.param(completion("Half", "error"), "interrupted", "error", id="half-error"),
        pytest.param(completion("Half", "abort"), "interrupted", "abort", id="half-abort"),
        pytest.param(completion("Half", "their_own"), "interrupted", "their_own", id="unknown-word"),
        pytest.param(completion("Half", None), "interrupted", "missing", id="no-finish-reason"),
        pytest.param(completion("Half", 7), "interrupted", "missing", id="finish-reason-no-word"),
        pytest.param(
            completion() | {"error": {"code": 502, "message": "Gone."}},
            "interrupted",
            "Gone.",
            id="error-beside-the-choice",
        ),
        pytest.param(
            completion() | {"error": "upstream_failed"}, "interrupted", "upstream_failed", id="error-as-text"
        ),
        pytest.param(
            {
                "choices": [
                    completion("Half", "error")["choices"][0] | {"error": {"code": 502, "message": "Gone."}}
                ],
                "usage": USAGE,
            },
            "interrupted",
            "Gone.",
            id="error-in-the-choice",
        ),
        pytest.param(
            {
                "choices": [
                    completion()["choices"][0] | {"error": {"code": "provider_error", "message": "Gone."}}
                ],
                "usage": USAGE,
            },
            "interrupted",
            "Gone.",
            id="error-in-words",
        ),
        pytest.param(
            {
                "choices": [completion()["choices"][0] | {"error": {"code": 403, "message": "No."}}],
                "usage": USAGE,
            },
            "blocked",
            "No.",
            id="blocked-in-the-choice",
        ),
        pytest.param(
            completion("<think>\nLet me s", "length"), "empty", "maxTokens", id="thoughts-to-the-cap"
        ),
        pytest.param(completion("<think>\nLet me s"), "empty", "thoughts", id="thoughts-without-an-end"),
        pytest.param(completion("<think>Hm.</think>\n"), "empty", "stop", id="thoughts-and-nothing"),
        pytest.param({"choices": [], "usage": USAGE}, "empty", "no choices", id="no-choices"),
        pytest.param(
            {"choices": [{"message": {"content": 5}}], "usage": USAGE}, "malformed", "", id="number"
        ),
        pytest.param({"choices": [{"text": "Hello."}], "usage": USAGE}, "malformed", "", id="no-message"),
        pytest.param({"choices": ["Hello."], "usage": USAGE}, "malformed", "", id="no-choice"),
        pytest.param({"object": "list", "usage": USAGE}, "malformed", "", id="something-else"),
    ],
)
def test_replies_of_no_use(body, fault, says):
    outcome = meaning(body)
    assert isinstance(outcome, Unusable)
    assert outcome.fault == fault
    assert says in outcome.why
    assert outcome.usage == Usage(12, 7)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        json.dumps(completion())[:-9],
        "null",
        "[]",
        '"x"',
        "[" * 100_000,
        "NaN",
        '{"choices": 1}',
    ],
)
def test_what_is_no_completion_is_malformed_and_what_it_cost_is_unknown(text):
    outcome = meaning(text)
    assert isinstance(outcome, Unusable)
    assert (outcome.fault, outcome.usage) == (Fault.MALFORMED, UNKNOWN)


def test_a_reply_that_is_too_long_says_so():
    outcome = read(
        ServerReply(200, "{", {}, 1.0, "The reply is longer than 4194304 bytes."), REQUEST, "gemini"
    )
    assert outcome == Unusable(Fault.MALFORMED, "The reply is longer than 4194304 bytes.", UNKNOWN)


# Refused for what is in the request.

TOGETHER_LONG = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000"
OPENAI_LONG = {
    "error": {
        "message": "This model's maximum context length is 8192 tokens. However, you have 9001.",
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
    }
}
GEMINI_LONG = [
    {"error": {"code": 400, "message": "The input token count (9000000) exceeds the maximum.", "status": "X"}}
]
AZURE_FILTER = {"error": {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        pytest.param(400, OPENAI_LONG, Fault.UNFIT, id="openai-too-long"),
        pytest.param(400, GEMINI_LONG, Fault.UNFIT, id="gemini-too-long"),
        pytest.param(422, {"error": {"message": TOGETHER_LONG}}, Fault.UNFIT, id="together-too-long"),
        pytest.param(
            400, {"message": "The prompt is too long: 9000 tokens", "object": "error"}, Fault.UNFIT, id="vllm"
        ),
        pytest.param(413, "Payload Too Large", Fault.UNFIT, id="too-large"),
        pytest.param(400, AZURE_FILTER, Fault.BLOCKED, id="azure-filter"),
    ],
)
def test_one_request_that_is_refused_does_not_end_the_job(status, body, fault):
    outcome = meaning(body, status)
    assert isinstance(outcome, Unusable)
    assert (outcome.fault, outcome.usage) == (fault, Usage(0, 0))


# What every request would meet.


@each(
    ("status", "body", "field", "says"),
    [
        (401, {"error": {"message": "Incorrect API key."}}, "openai.apiKeySecretRef", "Incorrect API key."),
        (403, {"error": {"message": "No access."}}, "openai.apiKeySecretRef", "No access."),
        (402, {"error": {"message": "Credit limit exceeded"}}, "openai.apiKeySecretRef", "billing"),
        (
            400,
            [{"error": {"message": "API key not valid. Please pass a valid API key."}}],
            "openai.apiKeySecretRef",
            "",
        ),
        (404, {"object": "error", "message": "The model `x` does not exist."}, "openai.model", "`x`"),
        (404, "404 page not found", "openai.model", "baseUrl"),
        (405, "", "openai.baseUrl", "/v1"),
        (301, "", "openai.baseUrl", "redirects"),
        (307, "Moved", "openai.baseUrl", "redirects"),
        (400, {"error": {"message": "Unknown name 'foo'"}}, "openai", "Unknown name 'foo'"),
        (422, {"detail": [{"loc": ["body", "foo"], "msg": "extra fields"}]}, "openai", "extra fields"),
        (418, {"error": "I am a teapot"}, "openai", "teapot"),
    ],
)
def test_what_is_refused_names_the_field_if_it_is_the_endpoints_fault(status, body, field, says):
    outcome = meaning(body, status)
    assert isinstance(outcome, Denied)
    assert outcome.complaint.startswith(f"endpoints.gemini.{field}: the server responds {status}")
    assert says in outcome.complaint


@each(
    ("status", "certain"),
    [(301, True), (401, True), (402, True), (404, True), (405, True),
     (400, False), (403, False), (406, False), (418, False), (422, False), (451, False), (460, False)],
)  # fmt: skip
def test_only_errors_that_no_content_can_cause_are_certain(status, certain):
    assert meaning({"error": {"message": "No."}}, status).certain == certain
    assert meaning({"error": {"message": "Invalid API key"}}, status).certain


@each(
    ("status", "message", "fault"),
    [
        (400, "data_inspection_failed", Fault.BLOCKED),
        (400, "\u8f93\u5165\u5185\u5bb9\u4e0d\u5408\u89c4", Fault.BLOCKED),
        (403, "Contenu inappropri\u00e9.", Fault.BLOCKED),
        (403, "The prompt is too long", Fault.UNFIT),
    ],
)
def test_what_a_refusal_is_if_it_is_the_requests_own_fault(status, message, fault):
    assert meaning({"error": {"message": message}}, status).fault == fault


# Nobody knows.


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 529, 408, 409])
def test_trouble_of_the_server(status):
    outcome = meaning({"error": {"message": "Overloaded."}}, status, retry_after="9")
    assert outcome == Lost(f"The server answered {status}: Overloaded.", 9.0)


def test_without_a_reply():
    assert read(ServerReply(0, "", {}, 1.0, "It broke."), REQUEST, "e") == Lost("It broke.")
    assert read(ServerReply(0, "", {}, 1.0, "No connection.", sent=False), REQUEST, "e") == Unsent(
        "No connection."
    )


def test_an_error_in_a_reply_that_looks_well():
    assert meaning({"error": {"code": 502, "message": "Bad upstream."}}) == Lost(
        "The server answered 502: Bad upstream."
    )
    assert meaning({"error": {"code": 429, "message": "Slow."}, "choices": []}) == Refused("Slow.", None)
    assert meaning({"error": {"code": "502", "message": "Bad upstream."}}) == Lost(
        "The server answered 502: Bad upstream."
    )
    assert meaning({"error": {"code": "server_error", "message": "Oh."}}) == Lost(
        "The server answered 500: Oh."
    )
    assert meaning({"error": {"code": "rate_limit_exceeded", "message": "Slow."}}) == Refused("Slow.", None)
    assert meaning({"error": {"code": 400, "message": "Odd."}}).fault == Fault.BLOCKED


# Refused for now.


def google(message="Resource has been exhausted.", quota=None, delay="37s"):
    details = [{"@type": "type.googleapis.com/google.rpc.Help", "links": []}]
    if quota is not None:
        failure = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]}
        details.append(failure)
    if delay is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return [{"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}}]


PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
NO_QUOTA = "Quota exceeded for metric: generate_content_free_tier_requests, limit: 0\nPlease retry in 37.4s."


@each(
    ("body", "headers", "seconds", "quota"),
    [
        pytest.param({"error": {"message": "Slow down"}}, {}, None, False, id="nothing-said"),
        pytest.param("Too Many Requests", {"retry_after": "12"}, 12.0, False, id="header"),
        pytest.param(google(), {}, 37.0, False, id="google"),
        pytest.param(google(quota=PER_MINUTE), {}, 37.0, False, id="google-minute"),
        pytest.param(
            google("limit: 10, per day or per minute", PER_MINUTE), {}, 37.0, False, id="speaks-of-days"
        ),
        pytest.param(google(quota=PER_DAY), {}, 37.0, True, id="google-day"),
        pytest.param(google(NO_QUOTA, delay=None), {}, 37.4, True, id="google-limit-0"),
        pytest.param(google(NO_QUOTA, PER_MINUTE), {}, 37.0, True, id="google-limit-0-a-minute"),
        pytest.param(
            {"error": {"details": [{"violations": 5}], "message": "limit: 0"}}, {}, None, True, id="odd"
        ),
        pytest.param(google("limit: 0.5"), {}, 37.0, False, id="a-limit-above-0"),
        pytest.param(google("limit: 05"), {}, 37.0, False, id="a-limit-of-5"),
        pytest.param(
            {"error": {"code": "insufficient_quota", "message": "Plan"}}, {}, None, True, id="openai-quota"
        ),
        pytest.param(
            {
                "error": {
                    "message": "Rate limit reached on requests per day (RPD): Limit 10000. Please try "
                    "again in 8.64s."
                }
            },
            {},
            8.64,
            False,
            id="a-day-that-is-over-in-seconds",
        ),
        pytest.param(
            {"error": {"code": "insufficient_quota", "message": "Plan"}},
            {"retry_after": "20"},
            20.0,
            False,
            id="a-stated-wait-beats-the-word",
        ),
        pytest.param({"error": {"message": "Slow"}}, {"retry_after": "7200"}, 7200.0, True, id="hours"),
        pytest.param(
            {"error": {"message": "Slow"}}, {"retry_after": "3599"}, 3599.0, False, id="not-yet-hours"
        ),
    ],
)
def test_refusals(body, headers, seconds, quota):
    outcome = meaning(body, 429, **headers)
    assert isinstance(outcome, Refused)
    assert (outcome.retry_after, outcome.quota) == (seconds, quota)


NOON = "Sat, 21 Nov 2026 12:00:00 GMT"


@each(
    ("headers", "message", "seconds"),
    [
        ({}, "", None),
        ({"retry-after": "0"}, "", 0.0),
        ({"retry-after": " 3 "}, "", 3.0),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after": "30s"}, "", 30.0),
        ({"retry-after": "-5"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "inf"}, "", None),
        ({"retry-after": "99999999999"}, "", LONGEST),
        ({"retry-after": "9" * 400}, "", None),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT", "date": NOON}, "", 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 14:00:30 +0200", "date": NOON}, "", 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:59:00 GMT", "date": NOON}, "", 0.0),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, "", 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, "", 0.25),
        ({"retry-after": "4"}, "Please try again in 9s.", 4.0),
        ({}, "Rate limit reached. Please try again in 1.242s. Visit …", 1.242),
        ({}, "Please try again in 350ms.", 0.35),
        ({}, "Please try again in 6m0s.", 360.0),
        ({}, "Please try again in 1h2m3s", 3723.0),
        ({}, "Please retry in 37.4s.", 37.4),
        ({}, "Please wait for 20 seconds", 20.0),
        ({}, "Retry after: 2 minutes", 120.0),
        ({}, "try again in 5 months", None),
        ({}, "Retry after 30 secs, or wait.", 30.0),
        ({}, "Please wait at least 2 mins", 120.0),
        ({}, "Please retry your request after 30 seconds.", 30.0),
        ({}, "Limit per day; it is available again in about 1 minute, 5 seconds", 65.0),
        ({}, "The quota resets in 45s", 45.0),
        ({}, "Try again in 2 days", 172800.0),
        ({}, "请在 8 秒后重试", 8.0),
        ({}, "30分钟后再试", 1800.0),
        ({}, "Slow down (retry_after=8)", 8.0),
        ({}, "Please do not retry. Limit 10000", None),
        ({"x-ms-retry-after-ms": "250"}, "", 0.25),
        ({"x-ratelimit-reset-requests": "1s"}, "", None),  # of every reply, and no wait that is asked for
    ],
)  # fmt: skip
def test_when_to_come_again(headers, message, seconds):
    assert retry_after(headers, None, message) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("37s", 37.0),
        ("0.5s", 0.5),
        ("3600s", 3600.0),
        ({"seconds": 12}, 12.0),
        ({"seconds": "12"}, 12.0),
        (5, None),
        ("", None),
    ],
)
def test_googles_retry_delay(delay, seconds):
    assert retry_after({}, google(delay=delay), "") == seconds
    assert retry_after({}, google(delay=delay)[0], "") == seconds


@each(
    ("body", "seconds"),
    [
        ({"error": {"message": "", "retry_after": 8.5}}, 8.5),
        ({"error": {"metadata": {"retry_after_seconds": 9}}}, 9.0),
        ({"retryAfter": "3"}, 3.0),
        ({"error": "slow down", "retry_after_ms": 1500}, 1.5),
        ({"retry_after": None}, None),
        ({"retry_after": True}, None),
    ],
)
def test_a_wait_that_is_a_field_of_the_body(body, seconds):
    assert retry_after({}, body, "") == seconds


def test_only_headers_about_time_are_kept():
    headers = {
        "Retry-After": "3",
        "Set-Cookie": "secret",
        "X-RateLimit-Reset": "1",
        "Authorization": "x",
        "Date": NOON,
    }
    assert kept_headers(headers) == {"retry-after": "3", "x-ratelimit-reset": "1", "date": NOON}


# Anything at all.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("limit: 0"),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "message", "content", "error", "details", "code", "usage", "finish_reason", "text",
             "prompt_tokens", "completion_tokens", "total_tokens", "retryDelay", "seconds", "violations",
             "refusal", "promptFeedback", "blockReason", "quotaId", "detail"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=30,
)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "date", "x-ratelimit-reset", "x-ratelimit-remaining"]),
    st.text(max_size=20) | st.integers().map(str) | st.just(NOON),
)


def shaped(*path):
    """Anything at all, at a place where something else is expected."""

    def build(value):
        for name in reversed(path):
            value = [value] if name == "*" else {name: value}
        return value

    return JSON.map(build)


ANYTHING = st.one_of(
    JSON,
    shaped("*", "error", "details", "*"),
    shaped("error", "details", "*", "violations"),
    shaped("error", "details", "*", "violations", "*"),
    shaped("error", "details", "*", "retryDelay"),
    shaped("choices", "*", "message", "content"),
    shaped("choices", "*"),
    shaped("usage"),
)


@given(ANYTHING, st.sampled_from([200, 201, 301, 400, 401, 404, 422, 429, 500, 503]), HEADERS)
def test_no_reply_breaks_the_reader(body, status, headers):
    outcome = read(ServerReply(status, json.dumps(body), headers, 1.0), REQUEST, "gemini")
    if isinstance(outcome, Denied):
        outcome.complaint.encode()
        return
    assert isinstance(outcome, Answer | Unusable | Refused | Lost)
    if isinstance(outcome, Answer):
        assert outcome.text.strip()
        outcome.text.encode()
    if isinstance(outcome, Answer | Unusable):
        assert outcome.usage.prompt_tokens >= 0
        assert outcome.usage.completion_tokens >= 0
    if isinstance(outcome, Refused | Lost):
        assert outcome.retry_after is None or 0 <= outcome.retry_after <= LONGEST


@given(st.text(), st.sampled_from([200, 400, 429, 500]))
def test_no_text_breaks_the_reader(text, status):
    outcome = read(ServerReply(status, text, {}, 1.0), REQUEST, "gemini")
    assert isinstance(outcome, Unusable | Refused | Lost | Denied)
    assert status == 400 or not isinstance(outcome, Denied)


def test_an_estimate_is_near():
    assert estimate_tokens("The quick brown fox jumps over the lazy dog.") == 12
    assert estimate_tokens("敏捷的棕色狐狸跳过懒狗") == 8

"""Errors of more OpenAI-compatible servers: whose fault, for how long, and what to change."""

import json

import pytest
from tests.cases import each

from tunesmith.dialogue.answers import read
from tunesmith.dialogue.endpoint import wants_other_field
from tunesmith.dialogue.replies import (
    Answer,
    ChatRequest,
    Denied,
    Fault,
    Lost,
    Refused,
    ServerReply,
    Unusable,
    Usage,
)
from tunesmith.dialogue.retry_after import kept_headers, resets

REQUEST = ChatRequest({"model": "m"}, max_tokens=200, prompt_tokens=100, most_prompt_tokens=900)
NOON = "Sat, 21 Nov 2026 12:00:00 GMT"
NOON_SECONDS = 1795262400


def answer(body, status=200, **headers):
    text = body if isinstance(body, str) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ServerReply(status, text, kept_headers(named), 0.5)


def meaning(body, status=200, **headers):
    return read(answer(body, status, **headers), REQUEST, "ep")


def error(message, **fields):
    return {"error": {"message": message, **fields}}


VLLM_BOTH = (
    "'max_tokens' or 'max_completion_tokens' is too large: 800. This model's maximum context length is 512 "
    "tokens and your request has 100 input tokens."
)


@each(
    ("status", "body"),
    [
        (400, {"object": "error", "message": VLLM_BOTH}),
        (422, {"error": "Input validation error: `inputs` must have less than 512 tokens. Given: 600"}),
        (400, error("InvalidParameter: Range of input length should be [1, 512]")),
        (400, {"code": 2, "message": "length of prompt_tokens (600) must be less than max_seq_len (512)"}),
        (400, error("Your request exceeded model token limit: 512 (requested: 600)")),
        (400, error("litellm.ContextWindowExceededError: too much")),
        (400, error("Prompt 超长", code="1261")),
        (400, error("Provider returned error", metadata={"raw": '{"message": "prompt is too long: 600"}'})),
        # No minute has room for it, however long one waits.
        (429, error("Request too large for m on tokens per min (TPM): Limit 500, Requested 600.")),
    ],
)
def test_a_request_that_is_too_long_is_only_that(status, body):
    outcome = meaning(body, status, x_ratelimit_reset_tokens="1m2.5s")
    assert isinstance(outcome, Unusable)
    assert outcome.fault is Fault.UNFIT
    assert not wants_other_field(answer(body, status))


TEMPERATURE = "Unsupported value: 'temperature' does not support 0.7 with this model."


@each(
    ("status", "body", "complaint", "certain"),
    [
        # Names of fields, and what is repeated of the request, are not the server's words.
        (
            400,
            error("max_tokens is too large: 900. This model supports at most 512 completion tokens."),
            "openai: the server responds 400",
            False,
        ),
        (400, error("temperature exceeds the maximum of 2"), "openai.sendTemperature", False),
        (
            422,
            {
                "detail": [
                    {"loc": ["body", "seed"], "msg": "Extra", "input": "prompt is too long: content_filter"}
                ]
            },
            "openai: the server responds 422",
            False,
        ),
        (
            400,
            error(TEMPERATURE, param="temperature", code="unsupported_value"),
            "openai.sendTemperature",
            True,
        ),
        (
            400,
            error(
                "'max_tokens' is not supported. Use 'max_completion_tokens'.", code="unsupported_parameter"
            ),
            "openai.maxTokensField",
            True,
        ),
        (400, error("Your credit balance is too low to access the API."), "billing", True),
        (412, error("Account suspended: spending limit reached"), "billing", True),
        (400, error("No.", code="billing_hard_limit_reached"), "billing", True),
        (403, error("用户额度不足", code="insufficient_user_quota"), "billing", True),
        (200, error("No.", code="invalid_api_key"), "openai.apiKeySecretRef", True),
        (200, error("No.", code="model_not_found"), "openai.model", True),
        (
            400,
            error("Provider returned error", metadata={"raw": "no such option", "provider_name": "Far"}),
            "Provider returned error Far no such option",
            False,
        ),
    ],
)
def test_a_setting_an_account_or_a_key_is_named(status, body, complaint, certain):
    outcome = meaning(body, status)
    assert isinstance(outcome, Denied)
    assert complaint in outcome.complaint
    assert "content_filter" not in outcome.complaint
    assert outcome.certain is certain


@each(
    "message", ["Your prompt was flagged as violating our policy", "Content Exists Risk", "可能包含敏感内容"]
)
def test_more_words_of_filters(message):
    assert meaning(error(message), 400).fault is Fault.BLOCKED
    assert isinstance(meaning(error(message), 400), Unusable)


@each("status", [424, 444, 449, 499])
def test_more_statuses_of_a_server_that_has_failed(status):
    assert isinstance(meaning(error("Failed during generation"), status), Lost)


RESETS = {"x_ratelimit_reset_requests": "12ms", "x_ratelimit_remaining_requests": "99"}


@each(
    ("status", "body", "headers", "seconds", "quota"),
    [
        (498, error("Flex tier capacity exceeded"), {}, None, False),
        (403, error("Slow down", code="rate_limit_exceeded"), {}, None, False),
        (429, error("Your plan", code="insufficient_quota"), RESETS, None, True),
        (429, error("Slow down"), RESETS, 0.012, False),
        (429, error("Rate limit exceeded: free-models-per-day."), RESETS, None, True),
        (429, error("You have used up your daily free allocation"), {}, None, True),
        (429, error("You have exceeded your daily rate limit"), {}, None, True),
        (429, error("Insufficient balance. Please recharge."), {"retry_after": "5"}, 5.0, True),
        (429, error("您的账户已欠费"), {}, None, True),
        (429, error("Suspended", type="exceeded_current_quota_error"), {}, None, True),
        (429, {"error": "Your team has used all available credits"}, {}, None, True),
        (
            429,
            error("Slow"),
            {"x_ratelimit_reset_requests_day": "33011.5", "x_ratelimit_remaining_requests_day": "0"},
            33011.5,
            True,
        ),
    ],
)
def test_a_limit_that_waiting_mends_and_one_that_it_does_not(status, body, headers, seconds, quota):
    outcome = meaning(body, status, **headers)
    assert isinstance(outcome, Refused)
    assert (outcome.retry_after, outcome.quota) == (seconds, quota)


@each(
    ("headers", "body", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "1s"}, None, 1.0),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "20ms"}, None, 0.02),
        (
            {
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "20ms",
                "x-ratelimit-remaining-tokens": "10",
            },
            None,
            360.0,
        ),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "1m2.5s",
                "x-ratelimit-remaining-tokens": "0",
            },
            None,
            62.5,
        ),
        (
            {
                "x-ratelimit-reset-requests-day": "33011.5",
                "x-ratelimit-remaining-requests-day": "9",
                "x-ratelimit-reset-tokens-minute": "11.5",
                "x-ratelimit-remaining-tokens-minute": "0",
            },
            None,
            11.5,
        ),
        ({"x-ratelimit-reset": "2"}, None, 2.0),
        ({"ratelimitbysize-reset": "27"}, None, 27.0),
        ({"ratelimit-reset": "50"}, None, 50.0),
        ({"x-ratelimit-reset-requests": ""}, None, None),
        ({"x-ratelimit-reset": "tomorrow"}, None, None),
        # Points in time, by the server's clock.
        ({"x-ratelimit-reset": str(NOON_SECONDS + 30), "date": NOON}, None, 30.0),
        ({"x-ratelimit-reset": str(NOON_SECONDS * 1000 + 30_500), "date": NOON}, None, 30.5),
        ({"x-ratelimit-reset-tokens": "2026-11-21T12:00:30Z", "date": NOON}, None, 30.0),
        ({"x-ratelimit-reset-tokens": "2026-11-21T12:00:30", "date": NOON}, None, 30.0),
        ({"x-ratelimit-reset": str(NOON_SECONDS - 30), "date": NOON}, None, None),
        ({"x-ratelimit-reset": str(NOON_SECONDS * 2), "date": NOON}, None, None),
        # OpenRouter puts the provider's headers into the body.
        (
            {"date": NOON},
            error("", metadata={"headers": {"X-RateLimit-Reset": f"{NOON_SECONDS + 9}000"}}),
            9.0,
        ),
        ({}, error("", metadata={"headers": [1]}), None),
    ],
)
def test_when_a_limit_is_as_it_was(headers, body, seconds):
    assert resets(headers, body) == (pytest.approx(seconds) if seconds is not None else None)


def test_a_failure_waits_for_no_limit():
    assert meaning(error("Oh."), 500, **RESETS) == Lost("The server answered 500: Oh.")
    assert meaning({"error": "Model is loading", "estimated_time": 20.5}, 503).retry_after == 20.5


def test_an_outage_of_a_day_is_not_slept_through():
    assert meaning("Maintenance", 503, retry_after="3599").retry_after == 3599.0
    assert meaning("Maintenance", 503, retry_after="86400").retry_after is None


def test_half_a_character_in_a_call_of_a_tool_can_be_written():
    function = {"name": "f\ud83d", "arguments": json.dumps({"a\udfff": "\ud83d"})}
    message = {"content": None, "tool_calls": [{"id": "1\ud83d", "function": function}]}
    body = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    request = ChatRequest({"model": "m", "tools": [{}]}, 200, 100, 900)
    (call,) = read(answer(body), request, "ep").calls
    assert (call.name, call.arguments, call.id) == ("f\ufffd", '{"a\ufffd": "\ufffd"}', "1\ufffd")


def test_thoughts_that_used_up_the_reply_are_paid():
    message = "Could not finish the message because max_tokens or model output limit was reached."
    outcome = meaning(error(message), 400)
    assert isinstance(outcome, Unusable)
    assert (outcome.fault, outcome.truncated) == (Fault.EMPTY, True)
    assert outcome.usage == Usage(900, 200, estimated=True)
    assert "Raise maxTokens" in outcome.why


def test_comments_before_a_reply_are_read_over():
    choice = {"message": {"content": "Hello."}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    for before in (": PROCESSING\n\n: PROCESSING\n\n", "\n \n", "\ufeff", ":\r\n\r\n"):
        assert meaning(before + body) == Answer("Hello.", False, Usage(3, 2)), repr(before)

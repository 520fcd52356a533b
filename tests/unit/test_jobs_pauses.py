"""What a dialogue job tells of an endpoint that is paused."""

import asyncio

from tests.cases import each
from tests.unit.endpoint_world import run

from tunesmith.dialogue.clients import EndpointClient
from tunesmith.dialogue.limiter import Limiter
from tunesmith.dialogue.limits import EndpointLimits, Pause
from tunesmith.dialogue.state import ROLES
from tunesmith.jobs.dialogue_clients import tell_pauses, trouble_of
from tunesmith.jobs.progress import Progress

NOON = 1777636800.0

PAUSES = {
    "none": (None, None),
    "of a moment": (Pause(-1.0, 2.0, refused=True), None),
    "lasts": (
        Pause(-15.0, 0.5, refused=False),
        ("EndpointUnavailable", "2026-05-01T11:59:45Z", "fails or does not respond", "with growing pauses"),
    ),
    "will last": (
        Pause(0.0, 30.0, refused=True),
        ("EndpointPaused", "2026-05-01T12:00:00Z", "limits the rate of requests", "with growing pauses"),
    ),
    "until later": (
        Pause(-60.0, 3600.0, refused=True),
        ("EndpointPaused", "2026-05-01T11:59:00Z", "limits the rate", "at 2026-05-01T13:00:00Z"),
    ),
}


@each(("pause", "told"), PAUSES.values(), ids=PAUSES)
def test_a_pause_is_trouble_when_it_lasts(pause, told):
    trouble = trouble_of("gemini", pause, NOON)
    if told is None:
        assert trouble is None
        return
    reason, since, *words = told
    assert (trouble.reason, trouble.since) == (reason, since)
    assert all(word in trouble.message for word in ("Endpoint gemini", *words)), trouble.message


def test_the_progress_holds_it_from_refusal_to_answer():
    class Named:
        name = "gemini"

    async def refused_then_answered():
        progress, limiter = Progress(), Limiter("gemini", EndpointLimits(4, None, None))
        clients = dict.fromkeys(ROLES, EndpointClient(Named(), limiter, 1))
        told = []

        def look():
            tell_pauses(progress, clients, lambda: NOON)
            told.append(progress.snapshot().get("trouble", {}).get("reason"))

        look()
        limiter.refused(await limiter.turn(10), 60.0)
        look()
        limiter.answered(await limiter.turn(10), 10)
        look()
        await asyncio.sleep(0)
        return told

    assert run(refused_then_answered())[0] == [None, "EndpointPaused", None]

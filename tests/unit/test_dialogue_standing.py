"""Whose fault a refused request is."""

import random

from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.dialogue.standing import AT_FIRST, ENOUGH, MOST_TIMES, EndpointStanding, RefusalVerdict

AGAIN, REQUEST, ENDPOINT, END = (
    RefusalVerdict.ASK_AGAIN,
    RefusalVerdict.REQUEST,
    RefusalVerdict.ENDPOINT,
    RefusalVerdict.END,
)


MANY = "abcdefghijklmnop"


def play(steps, calls="abcdefgh"):
    """The verdicts of a history: "a+" means that call a is asked and answered, "a-" that it is refused,
    "a!" that it is refused for what can only be the endpoint's fault.
    """
    standing, verdicts = EndpointStanding(), []
    cases = {name: standing.enter() for name in calls}
    for name, what in steps.split():
        number = standing.send()
        standing.returned(number)
        if what == "+":
            standing.answered(number)
            standing.leave(cases[name])
        else:
            verdicts.append(standing.refused(cases[name], "No.", what == "!"))
    return verdicts


@each(
    ("steps", "calls", "verdicts"),
    [
        # Asked once more; others succeed: its own fault.
        ("a+ b- c+ b-", "abcdef", [AGAIN, REQUEST]),
        # So it is though it was the very first request that this process has sent.
        ("a- b+ a-", "abcdef", [AGAIN, REQUEST]),
        # An odd moment: the second time it is answered.
        ("a+ b- b+ c- d+ c-", "abcdef", [AGAIN, AGAIN, REQUEST]),
        # Nobody else was asked meanwhile: they will show.
        ("a+ b- b- c+ b-", "abcdef", [AGAIN, AGAIN, REQUEST]),
        # There is nobody else.
        ("a+ b- b-", "ab", [AGAIN, REQUEST]),
        ("a- a-", "a", [AGAIN, REQUEST]),
        # Others are refused too: the endpoint's.
        ("a+ b- c- b- c-", "abcdef", [AGAIN, AGAIN, ENDPOINT, ENDPOINT]),
        # And it answers again.
        ("a+ b- c- b- d+ c- e- e+", "abcdef", [AGAIN, AGAIN, ENDPOINT, REQUEST, AGAIN]),
        # Refused from the start, by what can only be the endpoint's fault.
        ("a! a!", "abcdef", [AGAIN, END]),
        ("a! b! c! d! e!", "abcdef", [AGAIN, AGAIN, AGAIN, AGAIN, END]),
        ("a! b+ a!", "abcdef", [AGAIN, REQUEST]),
        # The same after it has worked is a moment's failure first.
        ("a+ b! c+ b!", "abcdef", [AGAIN, REQUEST]),
        ("a+ b! c! b!", "abcdef", [AGAIN, AGAIN, ENDPOINT]),
        # All that there are, from the start.
        ("a- b- a-", "ab", [AGAIN, AGAIN, END]),
        ("a- b- c- d- e- a-", "abcdefgh", [AGAIN] * 6),
        ("a- b- c- d- e- f- g- h- a-", "abcdefgh", [*[AGAIN] * 8, END]),
        (" ".join(f"{name}-" for name in MANY + "a"), MANY + "z", [*[AGAIN] * 15, ENDPOINT, END]),
        # The first records of a file are all refused for what is in them.
        ("a- b- c- d- e- f- g+ a-", "abcdefgh", [*[AGAIN] * 6, REQUEST]),
        # A few of many, from the start.
        ("a- b- a- b- c+ a- b-", "abcdefgh", [*[AGAIN] * 4, REQUEST, REQUEST]),
    ],
)
def test_whose_fault_it_is(steps, calls, verdicts):
    assert play(steps, calls) == verdicts


def test_an_answer_to_what_was_sent_before_the_refusal_says_nothing():
    standing = EndpointStanding()
    standing.answered(standing.send())
    early, one, other = standing.send(), standing.enter(), standing.enter()
    standing.send()
    assert standing.refused(one, "No.") is AGAIN
    standing.answered(early)
    standing.send()
    assert standing.refused(other, "No.") is AGAIN
    assert standing.refused(one, "No.") is ENDPOINT


def test_from_the_start_what_was_sent_before_is_waited_for():
    """A filter refuses at once, and a model takes its time: the slow request shows whose fault it was."""
    standing = EndpointStanding()
    slow, cases = standing.send(), [standing.enter() for _ in range(20)]

    def refused(case):
        standing.returned(standing.send())
        return standing.refused(case, "No.")

    verdicts = [refused(case) for _ in range(3) for case in cases[:AT_FIRST]]
    assert END not in verdicts
    assert ENDPOINT in verdicts  # everyone pauses meanwhile
    standing.returned(slow)
    assert refused(cases[0]) is END


def test_a_few_unlucky_requests_at_the_end_of_a_job_fail_by_themselves():
    assert len("bcd") < ENOUGH
    verdicts = play("a+ " + "b- c- d- " * MOST_TIMES, "abcd")
    assert verdicts == [*[AGAIN] * 3, *[ENDPOINT] * 3 * (MOST_TIMES - 2), *[REQUEST] * 3]


def test_at_the_end_the_words_tell():
    """Six requests are left, more than a few; two like them were found to be the requests' own fault."""
    standing = EndpointStanding()
    standing.answered(standing.send())
    first, witness = standing.enter(), standing.enter()
    standing.send()
    assert standing.refused(first, "Not this. Request 17") is AGAIN
    standing.answered(standing.send())
    standing.leave(witness)
    assert standing.refused(first, "Not this. Request 18") is REQUEST
    standing.leave(first)
    left = [standing.enter() for _ in range(6)]
    first_time = [standing.refused(case, f"Not this. Request 5f-{at}") for at, case in enumerate(left)]
    assert first_time == [AGAIN] * 4 + [ENDPOINT] * 2
    assert standing.refused(left[0], "Not this. Request a0c") is REQUEST
    assert standing.refused(left[1], "Bad gateway.") is ENDPOINT


@given(st.integers(0, 2**32), st.integers(1, 8), st.floats(0, 0.6))
def test_requests_that_are_refused_for_what_is_in_them_never_end_the_job(seed, parallel, share):
    """However many there are, and in whatever order answers come: unless all that is left is refused, for the
    first time, in words that no request was yet found guilty of.
    """
    world, standing = random.Random(seed), EndpointStanding()
    standing.answered(standing.send())
    poisoned = {number: world.random() < share for number in range(60)}
    cases = {number: standing.enter() for number in poisoned}
    waiting, flying, failed = list(poisoned), [], set()
    for _ in range(10_000):
        while waiting and len(flying) < parallel:
            flying.append((waiting.pop(0), standing.send()))
        if not flying:
            break
        call, number = flying.pop(world.randrange(len(flying)))
        if not poisoned[call]:
            standing.answered(number)
            standing.leave(cases[call])
            continue
        verdict = standing.refused(cases[call], "No.")
        assert verdict is not END
        if verdict is REQUEST:
            failed.add(call)
            standing.leave(cases[call])
        else:
            waiting.append(call)
    assert failed <= {call for call, bad in poisoned.items() if bad}
    assert not flying or not failed


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_an_endpoint_that_refuses_everyone_costs_no_dialogue_while_many_are_waiting(seed, parallel):
    world, standing = random.Random(seed), EndpointStanding()
    standing.answered(standing.send())
    cases = [standing.enter() for _ in range(60)]
    waiting, flying, verdicts = list(cases), [], []
    for _ in range(200):
        while waiting and len(flying) < parallel:
            flying.append(waiting.pop(0))
            standing.send()
        case = flying.pop(world.randrange(len(flying)))
        verdicts.append(standing.refused(case, "No."))
        waiting.append(case)
    assert REQUEST not in verdicts
    assert END not in verdicts
    assert ENDPOINT in verdicts

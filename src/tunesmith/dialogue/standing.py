"""Whose fault a refused request (4xx) is: its own, or that of the endpoint, which would refuse every other.

What has worked is presumed to work again. A request that is refused is retried once after a pause. Where
others have been answered in between, the fault is the request's. Where others are refused too, it is the
endpoint's: everyone pauses, and single requests, each another one, probe it. An endpoint that has never
answered is given up as soon as several requests were refused and none sent before is still in progress
(a filter refuses at once what a model answers in seconds), or one twice for what can only be the endpoint's
fault (key, model, address). At the end of a job, where nobody else is left to be asked, a refusal
in the same words as one that was found to be a request's own fault is one too.

Pure: does not depend on HTTP, time and money.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

ENOUGH = 5
"""Requests that were all refused, with no answer in between, are no longer taken for unlucky ones."""
AT_FIRST = 16
"""The same at an endpoint that has never answered: the first records of a file may all be of one kind."""
MOST_TIMES = 4
"""Refusals after which one of a few that are left fails, though nobody was answered in between."""

_MOST_SAID = 100
_NUMBERS = re.compile(r"[\w-]*\d[\w-]*")


class RefusalVerdict(Enum):
    """What to do with a request that was refused."""

    ASK_AGAIN = "ask again"
    """Pause this request, and ask once more."""
    REQUEST = "request"
    """It is this request's fault."""
    ENDPOINT = "endpoint"
    """Pause everyone and probe; ask again."""
    END = "end"
    """The endpoint refuses everyone, and did so from the start."""


@dataclass(slots=True, eq=False)
class RefusedCall:
    """One call at the endpoint: how often it was refused, and which request was the last sent before that."""

    refusals: int = 0
    since: int = 0


class EndpointStanding:
    """What one endpoint has done with the requests of this process."""

    def __init__(self) -> None:
        self.worked = False
        """Whether it has answered with this key and model."""
        self._sent = self._latest = 0
        self._under_way: set[int] = set()
        self._open: set[RefusedCall] = set()
        self._refused: set[RefusedCall] = set()  # with no answer to anything that was sent since
        self._own: set[str] = set()  # what was said where the fault was the request's

    def enter(self) -> RefusedCall:
        """Register a call that wants an answer; `leave` when it has ended."""
        case = RefusedCall()
        self._open.add(case)
        return case

    def leave(self, case: RefusedCall) -> None:
        """Unregister a call that is over."""
        self._open.discard(case)

    def send(self) -> int:
        """Register a sent request; return its number, for `returned` and `answered`."""
        self._sent += 1
        self._under_way.add(self._sent)
        return self._sent

    def returned(self, number: int) -> None:
        """Report that the outcome of this request is known now, or never will be."""
        self._under_way.discard(number)

    def answered(self, number: int) -> None:
        """Report that this request was answered, whatever the answer is worth."""
        self.worked = True
        self._latest = max(self._latest, number)
        self._refused = {case for case in self._refused if case.since >= number}

    def refused(self, case: RefusedCall, said: str, certain: bool = False) -> RefusalVerdict:
        """Return what to do with a call that was refused now.

        `said` are the server's words. `certain`: the error can only be the endpoint's.
        """
        case.refusals += 1
        if case.refusals == 1:
            case.since = self._sent
        said = _NUMBERS.sub("#", said)  # each request has a unique id
        others_answered = self._latest > case.since
        self._refused.add(case)
        many = len(self._refused) >= (ENOUGH if self.worked or certain else AT_FIRST)
        if certain and not self.worked and (many or case.refusals > 1):
            return RefusalVerdict.END
        if case.refusals == 1:
            return RefusalVerdict.ENDPOINT if many else RefusalVerdict.ASK_AGAIN
        if not self.worked:
            return self._from_the_start(case)
        if others_answered:
            self._refused.discard(case)
            self._own = {*self._own, said} if len(self._own) < _MOST_SAID else self._own
            return RefusalVerdict.REQUEST
        if not self._witnesses and said in self._own:
            return RefusalVerdict.REQUEST
        if len(self._refused) == 1:
            return self._alone(case)
        return RefusalVerdict.REQUEST if not many and case.refusals >= MOST_TIMES else RefusalVerdict.ENDPOINT

    @property
    def _witnesses(self) -> bool:
        """Whether other calls wait or are in progress, whose outcome will show whose fault it is."""
        return bool(self._open - self._refused)

    def _from_the_start(self, case: RefusedCall) -> RefusalVerdict:
        number = len(self._refused)
        if number >= AT_FIRST or (number > 1 and not self._witnesses):
            earlier = any(sent <= case.since for sent in self._under_way)
            return RefusalVerdict.ENDPOINT if earlier else RefusalVerdict.END
        return self._alone(case)

    def _alone(self, case: RefusedCall) -> RefusalVerdict:
        again = self._witnesses and case.refusals < MOST_TIMES
        return RefusalVerdict.ASK_AGAIN if again else RefusalVerdict.REQUEST

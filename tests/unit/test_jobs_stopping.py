"""SIGTERM: how long there is."""

import os
import signal

import pytest

from tunesmith.errors import StoppedError
from tunesmith.jobs.stopping import KILLED_AFTER, StopFlag


def test_told_to_stop():
    flag = StopFlag()
    assert (flag.asked, flag.seconds_left()) == (False, None)
    flag.check()
    before = signal.getsignal(signal.SIGTERM)
    try:
        flag.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        first = flag.asked_at
        os.kill(os.getpid(), signal.SIGTERM)  # told twice, there is no more time than before
    finally:
        signal.signal(signal.SIGTERM, before)
    assert flag.asked
    assert flag.asked_at == first
    assert KILLED_AFTER - 5 < flag.seconds_left() <= KILLED_AFTER
    with pytest.raises(StoppedError, match=r"^The job was stopped\. Run it again to resume"):
        flag.check()

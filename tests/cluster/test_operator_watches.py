"""A watch may fail in every way: the operator goes on seeing, or ends so that it is started again."""

import json
import time
import urllib.error
import urllib.request

import pytest
from tests.cluster.api_proxy import ApiProxy, Hang, error_event
from tests.cluster.world import OperatorProcess, World, apply, fine_tune, free_port

FAULTS = {
    "HTTP 401": 401,
    "HTTP 403": 403,
    "HTTP 404": 404,
    "HTTP 409": 409,
    "HTTP 410": 410,
    "HTTP 429": 429,
    "HTTP 500": 500,
    "HTTP 503": 503,
    "in-stream 410": error_event(410),
    "in-stream 429": error_event(429),
    "in-stream 500": error_event(500),
    "truncated JSON": b'{"type": "MODIFIED", "object": {"metad',
    "bad UTF-8": b'{"type": "ADDED", "object": "\xff\xfe"}\n',
    "not an object": b"7\n",
    "an end at once": b"",
    "no answer": Hang(answer=False),
    "no events": Hang(answer=True),
}
WATCHES = ["jobs", "their objects"]


def health(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


class Faulty:
    """One fault on the watches of one resource, as long as `on`."""

    def __init__(self, plural, fault):
        self.plural, self.fault, self.on, self.hits = plural, fault, False, 0

    def __call__(self, request):
        if not (self.on and request.is_watch and request.path.endswith(f"/{self.plural}")):
            return None
        self.hits += 1
        if self.fault == b"":
            time.sleep(0.1)
        return self.fault


@pytest.mark.parametrize("watched", WATCHES)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_watch_that_fails(namespace, backend, tmp_path, fault, watched):
    """For four seconds; then either the process has ended, or it sees what was made since."""
    world, port = World(namespace, backend), free_port()
    plural = "finetunejobs" if watched == "jobs" else backend.plural
    faulty = Faulty(plural, fault)
    with ApiProxy(faulty) as proxy:
        operator = OperatorProcess(
            namespace.namespace,
            port,
            tmp_path / "operator.log",
            KUBECONFIG=proxy.kubeconfig(tmp_path / "kubeconfig"),
        )
        try:
            apply(world, fine_tune("before"))
            world.until_child("before-ftj-1")
            world.until(lambda: health(port) == 200, "health")
            faulty.on = True
            world.until(lambda: proxy.cut_watches(plural) or faulty.hits, "the fault")
            time.sleep(4)  # as long as the fault lasts
            faulty.on = False
            apply(world, fine_tune("after"))
            world.condition("before-ftj-1", "Running")

            def recovered_or_dead():
                if operator.process.poll() is not None or health(port) >= 500:
                    return "dead"
                sees = world.child("after-ftj-1")
                return "sees" if sees and world.status("ftj", "before").get("phase") == "Running" else None

            outcome = world.until(recovered_or_dead, f"recovery or death after {fault}", 30)
            print(f"{plural}: {fault!r}: {outcome}")
            if outcome == "dead":
                assert operator.process.wait(15) == 3
                lines = (tmp_path / "operator.log").read_text().splitlines()
                words = [json.loads(line)["message"] for line in lines]  # one a line, no bare traceback
                assert any(said.startswith("Exiting") for said in words)
        finally:
            operator.kill()
            print((tmp_path / "operator.log").read_text()[-3000:])

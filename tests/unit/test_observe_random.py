"""Whatever happens in whatever order, with the operator dying between its writes, some things always hold."""

import copy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sightings import PUBLISHED, check, child, pod, seen

from tunesmith import names
from tunesmith.plan import pytorchjob
from tunesmith.plan.attempt_object import of_attempt
from tunesmith.plan.pods import may_write
from tunesmith.plan.transition import next_state

TERMINAL = ("Succeeded", "Failed")


class Life(RuleBasedStateMachine):
    """One job: the operator's loop, the training operator, a user and a cluster that takes pods away."""

    def __init__(self):
        super().__init__()
        self.status, self.children, self.pods = {}, {}, []
        self.run, self.time, self.launches, self.end = {}, 0.0, 0, None
        self.config_maps = set()
        self.created = 0

    def look(self):
        """One look; what it asks for, for the rules to carry out."""
        children = list(self.children.values())
        following = next_state(
            seen(
                copy.deepcopy(self.status),
                children=children,
                pods=self.pods,
                config_maps=self.config_maps,
                at=self.time,
                **self.run,
            )
        )
        check(following.status)
        assert not (following.create and following.delete)
        if following.create is not None:
            known = max([self.status.get("launches", 0), *self.children])
            lost = known not in self.children or f"tune-ftj-{known}" not in self.config_maps
            assert following.create == known + 1 or (following.create == known and lost)
            assert following.create == known or not any(may_write(one) for one in self.pods)
        if following.suspend is not None and not following.suspend[1]:
            body = self.children[int(following.suspend[0].rsplit("-", 1)[1])]
            assert not of_attempt(self.pods, pytorchjob.read(body))
        return following

    def carry_out(self, following):
        if following.create is not None:
            self.config_maps.add(f"tune-ftj-{following.create}")
        if following.create is not None and following.create not in self.children:
            self.children[following.create] = child(following.create, at=self.time)
            self.created += 1
        if following.suspend is not None:
            body = self.children[int(following.suspend[0].rsplit("-", 1)[1])]
            wanted = following.suspend[1]
            body["spec"]["runPolicy"]["suspend"] = wanted
            body["metadata"]["annotations"] = {names.ANNOTATION_SUSPENDED: "true"} if wanted else {}
        for name in following.delete:
            self.children.pop(int(name.rsplit("-", 1)[1]), None)
            self.config_maps.discard(name)

    @rule(seconds=st.sampled_from([0, 1, 30, 1000]))
    def operator(self, seconds):
        self.time += seconds
        following = self.look()
        self.carry_out(following)
        self.status = following.status

    @rule()
    def operator_dies_before_the_status(self):
        self.carry_out(self.look())

    @rule()
    def operator_until_quiet(self):
        """When nothing else happens, one look acts, the next sees what came of it, and then all is still."""
        self.operator(0)
        self.operator(0)
        before = copy.deepcopy((self.status, self.children))
        self.operator(0)
        assert (self.status, self.children) == before

    def newest(self):
        return max(self.children) if self.children else None

    @precondition(lambda self: self.children)
    @rule(kind=st.sampled_from(["Running", "Succeeded", "Failed"]))
    def training_operator(self, kind):
        body = self.children[self.newest()]
        if not any(c["type"] in TERMINAL for c in body["status"]["conditions"]):
            self.children[self.newest()] = child(self.newest(), kind, at=self.time) | {"spec": body["spec"]}

    @precondition(lambda self: self.children)
    @rule(how=st.sampled_from([{"word": PUBLISHED}, {"code": 1}, {"code": 137, "reason": "OOMKilled"}]))
    def pod_ends(self, how):
        self.pods.append(pod(self.newest(), at=self.time, **how))

    @precondition(lambda self: self.children)
    @rule()
    def pod_is_taken(self):
        self.pods.append(pod(self.newest(), code=137, at=self.time, disrupted="drain", phase="Failed"))

    @precondition(lambda self: self.children)
    @rule(runs=st.booleans())
    def pod_is_deleted(self, runs):
        state = {"state": {"running": {}}} if runs else {}
        self.pods.append(pod(self.newest(), code=1, at=self.time, deleted=self.time, **state))

    @precondition(lambda self: self.children)
    @rule()
    def pod_runs(self):
        self.pods.append(pod(self.newest(), state={"running": {}}, kind="worker"))

    @rule()
    def pods_are_gone(self):
        self.pods = []

    @precondition(lambda self: self.children)
    @rule()
    def somebody_deletes_the_child(self):
        del self.children[self.newest()]

    @rule()
    def somebody_deletes_config_maps(self):
        self.config_maps = set()

    @rule(
        run=st.fixed_dictionaries(
            {"suspend": st.booleans(), "maxAttempts": st.integers(1, 4)},
            optional={
                "activeDeadlineSeconds": st.sampled_from([10, 900]),
                "ttlSecondsAfterFinished": st.sampled_from([0, 60]),
            },
        )
    )
    def user(self, run):
        self.run = run

    @invariant()
    def phases_do_not_go_back(self):
        phase = self.status.get("phase")
        assert self.end in (None, phase)
        self.end = phase if phase in TERMINAL else None

    @invariant()
    def counts_make_sense(self):
        launches, attempts = self.status.get("launches", 0), self.status.get("attempts", 0)
        assert launches >= self.launches
        assert attempts <= launches <= self.created
        self.launches = launches


Life.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase

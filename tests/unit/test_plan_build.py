"""One attempt's objects: names, labels, owners, Secrets, resources; no value of a manifest leaks out."""

import copy
import json
import re

import pytest
from full_manifests import FULL, text_fields
from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed
from hypothesis import given
from hypothesis import strategies as st
from restricted import complaints

from tunesmith.api.manifest import parse_document
from tunesmith.errors import ManifestError
from tunesmith.names import MLFLOW_VARIABLES, Kind, child_name, secret_env
from tunesmith.plan.build import PlanSettings, build, output_uris
from tunesmith.plan.pod_template import processes_per_node
from tunesmith.plan.runtimes import Runtime

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
GOOD = {"FineTuneJob": FINE_TUNE, "RejectionSampleJob": SAMPLE, "DialogueGenJob": DIALOGUE}


def plan(document, **options):
    return build(parse_document(document, "m.yaml", 1), {}, **options)


def pod(document, role="Master"):
    return plan(document).child["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"]


def environment(document):
    return {item["name"]: item for item in pod(document)["containers"][0]["env"]}


@pytest.mark.parametrize("kind", FULL)
def test_the_container_and_its_restart_policy(kind):
    specs = plan(FULL[kind]).child["spec"]["pytorchReplicaSpecs"]
    counts = {role: replica["replicas"] for role, replica in specs.items()}
    assert counts == ({"Master": 1} if kind == "DialogueGenJob" else {"Master": 1, "Worker": 2})
    for replica in specs.values():
        assert replica["restartPolicy"] == "Never"
        (container,) = replica["template"]["spec"]["containers"]
        assert container["name"] == "pytorch"
        assert list(complaints(replica["template"]["spec"])) == []
        assert replica["template"]["spec"]["automountServiceAccountToken"] is False
    assert all(replica["template"] == specs["Master"]["template"] for replica in specs.values())


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("name", ["a", "a" * 40, "a-" * 19 + "9z"])
def test_names_are_short_enough_for_pods_too(kind, name):
    document = changed(GOOD[kind], {"metadata.name": name})
    made = plan(document, attempt=100)
    # The last of the 512 nodes that are allowed at most; its pod has the longest name.
    for thing in (made.config_map, made.child):
        assert DNS_1035.fullmatch(thing["metadata"]["name"])
        assert len(f"{thing['metadata']['name']}-worker-510") <= 63
    assert made.config_map["metadata"]["name"] == child_name(kind, name, 100)
    (volume,) = (v for v in pod(document)["volumes"] if v["name"] == "run")
    assert volume["configMap"]["name"] == child_name(kind, name, 1)


def test_kinds_and_attempts_do_not_share_names():
    made = {child_name(kind, name, attempt) for kind in Kind for name in ("a", "b") for attempt in (1, 2)}
    assert len(made) == 12


def test_an_owner_is_named_where_there_is_one():
    made = plan(FINE_TUNE, owner_uid="u-1")
    (owner,) = made.config_map["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "tunesmith.dev/v1alpha1", "kind": "FineTuneJob", "name": "tune", "uid": "u-1",
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    assert made.child["metadata"]["ownerReferences"] == [owner]
    assert "ownerReferences" not in plan(FINE_TUNE).config_map["metadata"]


def test_queue_labels_go_to_the_job_alone():
    queue = {"kueue.x-k8s.io/queue-name": "q", "kueue.x-k8s.io/priority-class": "p"}
    made = plan(changed(FINE_TUNE, {"metadata.labels": {**queue, "other": "x"}}))
    labels = made.child["metadata"]["labels"]
    assert queue.items() <= labels.items()
    assert "other" not in labels
    assert not queue.keys() & made.config_map["metadata"]["labels"].keys()
    template = made.child["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    assert template["metadata"]["labels"]["tunesmith.dev/job"] == "tune"


def test_runtimes_are_the_administrators():
    settings = PlanSettings(
        {"default": Runtime("a@sha256:1"), "big": Runtime("b@sha256:2")}, service_account="sa"
    )
    made = plan(changed(FINE_TUNE, {"spec.runtime": "big"}), settings=settings)
    spec = made.child["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "b@sha256:2"
    assert spec["serviceAccountName"] == "sa"
    with pytest.raises(ManifestError, match=r"spec\.runtime: is not offered here; offered: big, default"):
        plan(changed(FINE_TUNE, {"spec.runtime": "huge"}), settings=settings)


@pytest.mark.parametrize(
    ("changes", "limits"),
    [
        ({}, {"nvidia.com/gpu": "1"}),
        ({"spec.resources.gpusPerNode": 0}, None),
        ({"spec.resources": {"gpusPerNode": 0, "cpu": 8}}, {"cpu": "8"}),
        (
            {"spec.resources": {"gpusPerNode": 4, "gpuResource": "amd.com/gpu", "memory": "1.5Gi", "cpu": 1}},
            {"cpu": "1", "memory": "1.5Gi", "amd.com/gpu": "4"},
        ),
    ],
    ids=["default", "none", "cpu-only", "all"],
)  # fmt: skip
def test_resources(changes, limits):
    container = pod(changed(FINE_TUNE, changes))["containers"][0]
    if limits is None:
        assert "resources" not in container
    else:
        assert container["resources"] == {"limits": limits, "requests": limits}


@pytest.mark.parametrize(
    ("kind", "gpus", "processes"),
    [("FineTuneJob", 0, 1), ("FineTuneJob", 8, 8), ("RejectionSampleJob", 8, 1), ("DialogueGenJob", 0, 1)],
)
def test_processes_of_a_pod(kind, gpus, processes):
    document = changed(GOOD[kind], {"spec.resources.gpusPerNode": gpus})
    job = parse_document(document, "m.yaml", 1)
    assert processes_per_node(job.kind, job.spec) == processes
    assert plan(document).child["spec"]["nprocPerNode"] == str(processes)


@pytest.mark.parametrize(
    ("scratch", "volume"),
    [
        ({}, {"emptyDir": {}}),
        ({"size": "5Gi"}, {"emptyDir": {"sizeLimit": "5Gi"}}),
        (
            {"size": "5Gi", "storageClassName": "fast"},
            {
                "ephemeral": {
                    "volumeClaimTemplate": {
                        "spec": {
                            "accessModes": ["ReadWriteOnce"],
                            "storageClassName": "fast",
                            "resources": {"requests": {"storage": "5Gi"}},
                        }
                    }
                }
            },
        ),
    ],
    ids=["default", "limited", "class"],
)
def test_scratch(scratch, volume):
    volumes = {v["name"]: v for v in pod(changed(FINE_TUNE, {"spec.resources.scratch": scratch}))["volumes"]}
    assert volumes["scratch"] == {"name": "scratch", **volume}


def test_shared_memory_and_placement():
    full = pod(FULL["FineTuneJob"])
    volumes = {v["name"]: v for v in full["volumes"]}
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert full["nodeSelector"] == {"zone": "a"}
    assert full["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 5}
    ]
    assert full["priorityClassName"] == "high"
    assert not {"nodeSelector", "tolerations", "priorityClassName"} & pod(FINE_TUNE).keys()


# --- Secrets and values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "secrets"),
    [
        ("FineTuneJob", {"TUNESMITH_SECRET_HUB_TOKEN", "TUNESMITH_SECRET_WANDB_K"}),
        (
            "DialogueGenJob",
            {"TUNESMITH_SECRET_HUB_TOKEN", "TUNESMITH_SECRET_WANDB_K", "TUNESMITH_SECRET_BIG_API_KEY"},
        ),
    ],
)
def test_secrets_come_by_reference_only(kind, secrets):
    variables = environment(FULL[kind])
    by_reference = {name for name, item in variables.items() if "valueFrom" in item}
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    one_of = {secret_env("mlflow", key) for key in MLFLOW_VARIABLES}
    assert by_reference == secrets | keys | one_of
    assert all(variables[name]["valueFrom"]["secretKeyRef"]["optional"] is True for name in one_of)
    for item in variables.values():
        assert set(item.get("valueFrom", {})) <= {"secretKeyRef"}
    assert variables["AWS_SESSION_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert not any("valueFrom" in item for item in environment(FINE_TUNE).values())


@pytest.mark.parametrize("kind", FULL)
def test_without_gpus_there_are_as_many_threads_as_cores(kind):
    cores = changed(FULL[kind], {"spec.resources": {"gpusPerNode": 0, "cpu": "900m", "memory": "1Gi"}})
    asked = {"resourceFieldRef": {"resource": "limits.cpu"}}
    assert environment(cores)["OMP_NUM_THREADS"]["valueFrom"] == asked
    gpus = changed(FULL[kind], {"spec.resources.gpusPerNode": 2})
    assert "OMP_NUM_THREADS" not in environment(gpus)


def test_two_secrets_never_share_a_variable():
    ref = {"apiKeySecretRef": {"name": "a-b", "key": "c"}}
    document = changed(FINE_TUNE, {
        "spec.hub.tokenSecretRef": {"name": "a", "key": "b-c"},
        "spec.tracking.wandb": {"project": "p", **ref},
    })  # fmt: skip
    with pytest.raises(ManifestError, match="both set the environment variable TUNESMITH_SECRET_A_B_C"):
        plan(document)
    same = changed(document, {"spec.hub.tokenSecretRef": ref["apiKeySecretRef"]})
    assert "TUNESMITH_SECRET_A_B_C" in environment(same)


def _with(document, path, value):
    try:
        return parse_document(changed(copy.deepcopy(document), {path: value}), "m.yaml", 1)
    except (ManifestError, KeyError):
        return None


MARKERS = ["$(HOME)", ";rm -rf ~", "`id`", "$(x);rm"]
# What Kubernetes itself must read: tolerations match taints, and nothing expands `$(…)` in them.
KUBERNETES_READS = re.compile(r"spec\.placement\.tolerations")


@pytest.mark.parametrize("kind", FULL)
def test_no_value_of_a_manifest_is_outside_run_json(kind):
    """Every text of a full manifest is replaced by what a shell would run or `$(VAR)` would expand."""
    taken = set()
    for path in text_fields(FULL[kind]):
        for text in [text for m in MARKERS for text in (m, f"s3://data/{m}", f"https://x.example/{m}")]:
            marked = text.replace(" ", "%20") if "://" in text else text
            job = _with(FULL[kind], path, marked)
            if job is None:
                continue
            taken.add(path)
            made = build(job, {})
            outside = json.dumps([made.child, {**made.config_map, "data": {}}])
            if KUBERNETES_READS.match(path):
                template = made.child["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
                outside = json.dumps(template["spec"]["containers"])
            else:
                annotation = path.startswith("metadata.annotations")
                assert annotation or marked in json.loads(made.run.to_json(), object_pairs_hook=_texts)
            assert json.dumps(marked)[1:-1] not in outside, path
    expected = {
        "FineTuneJob": ["spec.previews[0].user", "spec.output.uri", "spec.tracking.wandb.project",
                        "spec.datasets[1].character.name", "spec.evaluation[0].verifier.regex.field"],
        "RejectionSampleJob": ["spec.sampling.stopTokens[0]", "spec.prompts.uri", "spec.hub.endpoint"],
        "DialogueGenJob": ["spec.endpoints.big.openai.model", "spec.endpoints.big.openai.extraBody.user"],
    }  # fmt: skip
    assert taken >= set(expected[kind])


def _texts(pairs):
    """All texts below, as one set: what `in` looks at, whatever the depth."""
    found = set()

    def walk(value):
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, set | frozenset):
            found.update(value)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    for _, value in pairs:
        walk(value)
    return frozenset(found)


@given(
    previews=st.lists(st.tuples(st.text(max_size=30), st.text(min_size=1, max_size=30)), max_size=3),
    project=st.text(min_size=1, max_size=50),
    data=st.from_regex(r"s3://data/[^/\x00-\x1f\x7f]{1,30}", fullmatch=True),
)
def test_free_text_changes_run_json_alone(previews, project, data):
    document = changed(FINE_TUNE, {
        "spec.previews": [
            {"name": f"p{i}", "system": system, "user": user} for i, (system, user) in enumerate(previews)
        ],
        "spec.tracking.wandb": {"project": project},
        "spec.datasets[0].uri": data,
    })  # fmt: skip
    try:
        job = parse_document(document, "m.yaml", 1)
    except ManifestError:
        return
    made = build(job, {})
    assert made.child == plan(FINE_TUNE).child
    assert made.config_map["metadata"] == plan(FINE_TUNE).config_map["metadata"]


def test_outputs_of_jobs():
    jobs = [parse_document(document, "m.yaml", 1) for document in GOOD.values()]
    assert output_uris(jobs)["research", "FineTuneJob", "tune"] == "s3://models/tune"
    assert len(output_uris(jobs)) == 3

"""Rules where things are opened: in the job's own processes, whatever led there."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hostile import ENDPOINTS, FUNCTIONS, RULES, URIS
from tests.cases import each

import tunesmith
from tunesmith import names
from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.open import find_files, open_store
from tunesmith.artifacts.opening import check_address, check_code, check_endpoint, check_module, locate
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.load import fetch_model
from tunesmith.errors import PermanentError, TunesmithError


@pytest.fixture
def pod(monkeypatch):
    monkeypatch.setenv(names.ENV_RULES, json.dumps(RULES))


@pytest.mark.usefixtures("pod")
@each("uri", URIS)
def test_what_no_rule_names_is_not_opened(uri):
    with pytest.raises(TunesmithError, match=r"may not open|control character|not a usable file"):
        (check_address if uri.startswith("hf://") else locate)(uri)


@pytest.mark.usefixtures("pod")
@each("url", ENDPOINTS)
def test_no_server_that_no_rule_names_is_talked_to(url):
    with pytest.raises(PermanentError, match="may not use the endpoint"):
        check_endpoint(url)
    with pytest.raises(PermanentError, match="may not use the endpoint"):
        open_store("s3://team-a/x", StorageOptions(endpoint_url=url))


@pytest.mark.usefixtures("pod")
def test_a_server_by_default_must_be_named_too(monkeypatch):
    from huggingface_hub import constants

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(PermanentError, match=r"amazonaws\.com \(the default of storage\.endpointUrl\)"):
        open_store("s3://team-a/x")
    hub = ModelSource(uri="hf://good/m")
    with pytest.raises(PermanentError, match=r"huggingface\.co \(the default of hub\.endpoint\)"):
        fetch_model(hub, HubSpec(), StorageOptions(), Path("unused"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://own.example")  # what a pod's environment says is allowed
    assert open_store("s3://team-a/x").uri == "s3://team-a/x"
    monkeypatch.setenv(names.ENV_RULES, json.dumps({**RULES, "endpoints": ["https://s3.amazonaws.com"]}))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert open_store("s3://team-a/x").uri == "s3://team-a/x"


@pytest.mark.usefixtures("pod")
@each("function", FUNCTIONS)
def test_no_function_that_no_rule_names_is_called(function):
    with pytest.raises(PermanentError, match=r"rule's pythonModules"):
        check_module(function.partition(":")[0])


@pytest.mark.usefixtures("pod")
def test_no_code_of_a_model_that_no_rule_names():
    check_code("hf://good/code")
    with pytest.raises(PermanentError, match="trustRemoteCode"):
        check_code("s3://team-a/model")


def test_a_link_out_of_a_folder_that_is_allowed_leads_nowhere(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "models/link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "models/own.txt").write_text("own")
    (tmp_path / "models/folder").symlink_to(tmp_path)
    monkeypatch.setenv(names.ENV_RULES, json.dumps({**RULES, "uris": [f"file://{tmp_path}/models"]}))
    store = open_store(f"file://{tmp_path}/models")
    assert store.read("own.txt") == b"own"
    with pytest.raises(PermanentError, match="may not open"):
        store.read("link.txt")
    with pytest.raises(PermanentError, match="may not open"):
        find_files(f"file://{tmp_path}/models/folder/secret.txt")


def test_on_a_machine_of_ones_own_links_into_proc_lead_nowhere(tmp_path):
    (tmp_path / "data.jsonl").symlink_to("/proc/self/environ")
    with pytest.raises(PermanentError, match="never read as data"):
        open_store(f"file://{tmp_path}").read("data.jsonl")
    with pytest.raises(PermanentError, match="never read as data"):
        locate("/proc/self/environ")


def test_a_pod_opens_its_own_scratch(tmp_path, monkeypatch):
    monkeypatch.setenv(names.ENV_RULES, json.dumps(RULES))
    monkeypatch.setenv(names.ENV_SCRATCH, str(tmp_path))
    assert open_store(f"file://{tmp_path}/a").read is not None


# What reads a model's folder, once it was fetched and looked through.
_FOLDERS = {
    "engines/adapter.py",
    "engines/load.py",
    "export/gguf/families.py",
    "tokens/chat.py",
    "training/export.py",
    "training/rehearsal.py",
}


def test_there_is_no_other_way_to_what_an_address_names():
    """`opening` alone splits addresses, `artifacts.open` makes stores, they and `from_hub` ask a hub."""
    makers = {
        "split_uri": {"artifacts/opening.py"},
        "S3Store": {"artifacts/open.py"},
        "FolderStore": {"artifacts/open.py"},
        "HubDataset": {"artifacts/open.py"},
        "snapshot_download": {"engines/hub.py", "artifacts/hub/dataset.py"},
        "hf_hub_download": {"artifacts/hub/dataset.py"},
        "HfApi": {"artifacts/hub/dataset.py", "artifacts/hub/push.py"},
        "set_client_factory": {"artifacts/hub/client.py"},
        "urlopen": set(),
        "urlretrieve": set(),
        "Client": set(),
        "AsyncClient": {"dialogue/endpoint.py"},
        "from_pretrained": _FOLDERS,
    }
    root = Path(tunesmith.__file__).parent
    wrong = [
        f"{path.relative_to(root)} calls {name}"
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and (name := getattr(node.func, "id", getattr(node.func, "attr", ""))) in makers
        and str(path.relative_to(root)) not in makers[name]
    ]
    assert wrong == []

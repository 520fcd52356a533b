"""The CustomResourceDefinitions of the three kinds, generated from the models that read manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tunesmith.api import admission
from tunesmith.api.manifest import SPECS
from tunesmith.api.openapi import structural_schema
from tunesmith.api.scalars import JOB_NAME, JOB_NAME_WORDS, MAX_JOB_NAME
from tunesmith.api.self_reference import self_reference_rules
from tunesmith.api.status import NOT_OBSERVED, JobStatus
from tunesmith.api.yaml_dump import Dumper
from tunesmith.names import CATEGORY, GROUP, PLURALS, SHORT_NAMES, VERSION, Kind

HEADER = f"# {admission.HEADER}\n"
# The spec's parts that may change after creation, and those that may while the job is suspended.
MUTABLE = ("run",)
WHILE_SUSPENDED = ("resources", "placement")
# The Helm chart's place beside crds/.
CHART = Path("charts/tunesmith")

_NAME_RULE = {
    "message": f"metadata.name {JOB_NAME_WORDS}",
    "rule": f"self.metadata.name.size() <= {MAX_JOB_NAME} && self.metadata.name.matches('^{JOB_NAME}$')",
}
_KIND_COLUMN = {
    Kind.FINE_TUNE: ("Loss", "number", ".status.progress.loss", "Last training loss"),
    Kind.REJECTION_SAMPLE: ("Accepted", "integer", ".status.progress.accepted", "Replies accepted"),
    Kind.DIALOGUE_GEN: ("Spent", "number", ".status.progress.spentUsd", "USD spent"),
}


def _columns(kind: Kind) -> list[dict[str, Any]]:
    rows = [
        ("Phase", "string", ".status.phase", "Phase of the job's life cycle"),
        ("Progress", "string", ".status.progress.text", "Done and total"),
        _KIND_COLUMN[kind],
        ("ETA", "string", ".status.progress.eta", "Expected time left"),
        ("Attempts", "integer", ".status.attempts", "Attempts that count"),
        ("Age", "date", ".metadata.creationTimestamp", "Time since the job was created"),
    ]
    wide = ("Reason", "string", ".status.reason", "Why the job is in its phase; with -o wide")
    columns: list[dict[str, Any]] = [
        {"name": name, "type": type_, "jsonPath": path, "description": text}
        for name, type_, path, text in (*rows, wide)
    ]
    columns[-1]["priority"] = 1
    return columns


def _unchangeable(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return transition rules: the spec except `run` is immutable; `has` detects added or removed ones.

    Where the pods run and what they get may change before or after the change of `run.suspend`, or with it:
    one of both specs is suspended.
    """
    rules = []
    for name, node in spec["properties"].items():
        if name in MUTABLE:
            continue
        if name in WHILE_SUSPENDED:
            message = "can be changed only while run.suspend is true; the next attempt has it then"
            suspended = f"self.{name} == oldSelf.{name} || self.run.suspend || oldSelf.run.suspend"
            rules.append({"fieldPath": f".{name}", "message": message, "rule": suspended})
            continue
        same = f"self.{name} == oldSelf.{name}"
        if name not in spec.get("required", []) and "default" not in node:
            same = f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || {same})"
        message = "cannot be changed after creation; delete the job and apply it again, or create another"
        rules.append({"fieldPath": f".{name}", "message": message, "rule": same})
    return rules


def _schema(kind: Kind) -> dict[str, Any]:
    spec = structural_schema(SPECS[kind], "spec")
    spec["x-kubernetes-validations"] = [*spec.get("x-kubernetes-validations", []), *_unchangeable(spec)]
    about = spec["description"]
    spec["description"] = (
        "Desired state of the job; immutable except for run, and resources and placement while suspended."
    )
    return {
        "description": about,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": f"{GROUP}/{VERSION}", "type": "string"},
            "kind": {"description": str(kind), "type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            # Without it, Flux and Helm take a job that no operator has seen for one that is as wanted.
            "status": {
                **structural_schema(JobStatus, "status"),
                "default": {"observedGeneration": NOT_OBSERVED},
            },
        },
        "x-kubernetes-validations": [_NAME_RULE, *self_reference_rules(kind, SPECS[kind])],
    }


def crd(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of one kind, as plain values."""
    plural, name = PLURALS[kind], str(kind)
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": _columns(kind),
        "schema": {"openAPIV3Schema": _schema(kind)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": plural,
                "singular": name.lower(),
                "shortNames": [SHORT_NAMES[kind]],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


class _Dumper(Dumper):
    """A dumper that indents lists below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists too."""
        del indentless
        super().increase_indent(flow, False)


def crd_text(kind: Kind) -> str:
    """Return the CustomResourceDefinition as YAML, the same text each time."""
    body = yaml.dump(crd(kind), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return f"{HEADER}---\n{body}"


def chart_text(kind: Kind) -> str:
    """Return it as a Helm template that can be disabled and is kept on uninstall."""
    name = f"  name: {PLURALS[kind]}.{GROUP}\n"
    keep = "{{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n{{- end }}\n"
    labels = '  labels:\n    {{- include "tunesmith.labels" . | nindent 4 }}\n'
    # Helm would interpret two opening braces, so they are escaped.
    before, after = (part.replace("{{", '{{ "{{" }}') for part in crd_text(kind).split(name, 1))
    return f"{{{{- if .Values.crds.enabled }}}}\n{before}{name}{labels}{keep}{after}{{{{- end }}}}\n"


def write_crds(folder: Path) -> list[Path]:
    """Write all three, named as controller-gen names them; return the files.

    If the chart is beside `folder`, as in this repository, its generated files are written too.
    """
    targets = [(folder, crd_text)]
    chart = folder.parent / CHART
    if chart.is_dir():
        targets.append((chart / "templates" / "crds", chart_text))
    paths = []
    for target, text in targets:
        target.mkdir(parents=True, exist_ok=True)
        for kind in Kind:
            path = target / f"{GROUP}_{PLURALS[kind]}.yaml"
            path.write_text(text(kind), encoding="utf-8")
            paths.append(path)
    if chart.is_dir():
        paths.append(chart / "templates" / "_ruled_fields.tpl")
        paths[-1].write_text(admission.chart_text(), encoding="utf-8")
    return paths

"""Schemas of the real CRDs of the objects that create pods, where their files are at hand."""

from pathlib import Path

import pytest
import yaml

CRDS = Path(__file__).parents[3] / "shared/data/crds"


def of_real_crd(name):
    """The schema of the only version of a CRD; skips the test where the file is missing."""
    path = CRDS / f"{name}.yaml"
    if not path.exists():
        pytest.skip(f"the CRD {name} is not here")
    (version,) = yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"][
        "versions"
    ]
    return version["schema"]["openAPIV3Schema"]

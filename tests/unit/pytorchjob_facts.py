"""Our own notes on the PyTorchJob CRD as a schema, and the CRD's schema cut down to what they speak of."""

from pathlib import Path

import yaml
from structural import INT_OR_STRING

CRD = Path(__file__).parents[3] / "shared/data/crds/kubeflow.org_pytorchjobs.yaml"
FACTS = yaml.safe_load((Path(__file__).parents[1] / "fixtures/pytorchjob.yaml").read_text("utf-8"))


def schema_of(fact):
    """The schema that one note stands for."""
    match fact:
        case "quantity":
            return {INT_OR_STRING: True}
        case str():
            return {"type": fact}
        case [item]:
            return {"type": "array", "items": schema_of(item)}
        case {"*": item}:
            return {"type": "object", "additionalProperties": schema_of(item)}
    made = {"type": "object", "properties": {n.removesuffix("!"): schema_of(f) for n, f in fact.items()}}
    required = sorted(name.removesuffix("!") for name in fact if name.endswith("!"))
    return made | ({"required": required} if required else {})


def real_schema():
    """The CRD's, or None where the file is not at hand."""
    if not CRD.exists():
        return None
    (version,) = yaml.safe_load(CRD.read_text("utf-8"))["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def cut_down(real, noted):
    """What the CRD says of the fields in our notes, in the words that the notes have."""
    kept = {key: real[key] for key in ("type", INT_OR_STRING) if key in real}
    if "items" in noted:
        kept["items"] = cut_down(real["items"], noted["items"])
    if "additionalProperties" in noted:
        kept["additionalProperties"] = cut_down(real["additionalProperties"], noted["additionalProperties"])
    if "properties" in noted:
        known = real.get("properties", {})
        kept["properties"] = {
            name: cut_down(known.get(name, {}), field) for name, field in noted["properties"].items()
        }
    return kept | ({"required": sorted(real["required"])} if real.get("required") else {})

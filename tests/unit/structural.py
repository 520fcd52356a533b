"""What the Kubernetes API server demands of a CustomResourceDefinition's schema, as a list of complaints."""

import json
import re

import jsonschema

TYPES = {"object", "array", "string", "integer", "number", "boolean"}
KEYWORDS = {
    "additionalProperties",
    "default",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}
RULE_KEYS = {"rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf"}
COLUMN_TYPES = {"integer", "number", "string", "boolean", "date"}
FUNCTIONS = {"size", "matches", "startsWith", "endsWith", "all", "exists", "exists_one", "contains"}
INT_OR_STRING = "x-kubernetes-int-or-string"
FREE = "x-kubernetes-preserve-unknown-fields"
# Above this many times a rule may run for one object, its cost must be looked at by hand.
MAX_RUNS = 5000


def draft4(node):
    """The schema as JSON Schema draft 4, which has flags for exclusive bounds too."""
    if isinstance(node, list):
        return [draft4(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: value if key in ("default", "enum") else draft4(value) for key, value in node.items()}
    if out.pop(INT_OR_STRING, False) is True:
        out["type"] = ["integer", "string"]
    out.pop("x-kubernetes-validations", None)
    return out


def valid(schema, value):
    return [error.message for error in jsonschema.Draft4Validator(draft4(schema)).iter_errors(value)]


def unknown_fields(schema, value, path=""):
    """Fields of `value` that pruning would drop."""
    if schema.get(FREE):
        return
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from unknown_fields(schema.get("items", {}), item, f"{path}[{i}]")
    if isinstance(value, dict):
        for name, item in value.items():
            child = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if child is None:
                yield f"{path}.{name}"
            else:
                yield from unknown_fields(child, item, f"{path}.{name}")


def child_at(schema, path):
    """The node at a path such as `.a.b[]`, or None."""
    for part in re.findall(r"\.(\w+)|(\[)", path):
        name = part[0]
        schema = (
            (schema.get("properties", {}).get(name) or schema.get("additionalProperties"))
            if name
            else schema.get("items") or schema.get("additionalProperties")
        )
        if not schema:
            return None
    return schema


def rule_complaints(node, where):
    for rule in node.get("x-kubernetes-validations", []):
        if set(rule) - RULE_KEYS or not rule.get("rule", "").strip():
            yield f"{where}: rule with keys {sorted(rule)}"
            continue
        if not rule.get("message", "").strip() or "\n" in rule["message"] or len(rule["message"]) > 2048:
            yield f"{where}: rule without a one-line message"
        if "fieldPath" in rule and child_at(node, rule["fieldPath"]) is None:
            yield f"{where}: fieldPath {rule['fieldPath']} leads nowhere"
        if "[" in rule.get("fieldPath", ""):
            yield f"{where}: fieldPath with an index"
        for path in re.findall(r"(?:self|oldSelf)((?:\.\w+|\[[^\]]*\])+)", rule["rule"]):
            parts = re.findall(r"\.\w+|\[", re.sub(r"\[[^\]]*\]", "[", path))
            known = [p for i, p in enumerate(parts) if not (p[1:] in FUNCTIONS and i == len(parts) - 1)]
            if not path.startswith(".metadata.name") and child_at(node, "".join(known)) is None:
                yield f"{where}: the rule speaks of self{path}, which is not there"


def type_complaints(node, where):
    free = node.get(INT_OR_STRING) or node.get(FREE)
    if "type" not in node and not free:
        yield f"{where}: no type"
    if "type" in node and (node["type"] not in TYPES or node.get(INT_OR_STRING)):
        yield f"{where}: type {node['type']}"
    for key in set(node) - KEYWORDS:
        yield f"{where}: {key} is not allowed"
    if "properties" in node and "additionalProperties" in node:
        yield f"{where}: additionalProperties beside properties"
    if node.get("type") == "array" and "items" not in node:
        yield f"{where}: a list without items"
    if not isinstance(node.get("additionalProperties", {}), dict):
        yield f"{where}: additionalProperties is not a schema"
    for key in ("exclusiveMinimum", "exclusiveMaximum"):
        if not isinstance(node.get(key, True), bool):
            yield f"{where}: {key} is a number"
    for name in set(node.get("required", [])) - set(node.get("properties", {})):
        yield f"{where}: requires {name}, which is not a property"
    if re.search(r"\(\?[=!<]|\\[1-9]", node.get("pattern", "")):
        yield f"{where}: a pattern that RE2 cannot read"
    for key in node.get("x-kubernetes-list-map-keys", []):
        if key not in node["items"].get("required", []):
            yield f"{where}: list key {key} is not required"


def default_complaints(node, where):
    for value in node.get("enum", []):
        if "type" in node and valid({"type": node["type"]}, value):
            yield f"{where}: {value!r} of enum has another type"
    if "default" not in node:
        return
    value = json.loads(json.dumps(node["default"]))
    for message in valid(node, filled(node, value)):
        yield f"{where}: default: {message}"
    for path in unknown_fields(node, value):
        yield f"{where}: default has the unknown field {path}"


def bound_complaints(node, where, runs):
    kind = node.get("type")
    if kind == "string" and "maxLength" not in node and "enum" not in node:
        yield f"{where}: no maxLength"
    if kind == "array" and "maxItems" not in node:
        yield f"{where}: no maxItems"
    if "additionalProperties" in node and "maxProperties" not in node:
        yield f"{where}: no maxProperties"
    if "x-kubernetes-validations" in node and runs > MAX_RUNS:
        yield f"{where}: its rules may run {runs} times"


def node_complaints(node, where, runs=1):
    for check in (type_complaints, default_complaints, rule_complaints):
        yield from check(node, where)
    yield from bound_complaints(node, where, runs)
    for name, child in node.get("properties", {}).items():
        yield from node_complaints(child, f"{where}.{name}", runs)
    if "items" in node:
        yield from node_complaints(node["items"], f"{where}[]", runs * node.get("maxItems", MAX_RUNS))
    if isinstance(node.get("additionalProperties"), dict):
        more = runs * node.get("maxProperties", MAX_RUNS)
        yield from node_complaints(node["additionalProperties"], f"{where}.*", more)


def column_complaints(version):
    schema = version["schema"]["openAPIV3Schema"]
    columns = version.get("additionalPrinterColumns", [])
    if len({column["name"] for column in columns}) != len(columns):
        yield "two columns of one name"
    for column in columns:
        if column["type"] not in COLUMN_TYPES:
            yield f"column {column['name']}: type {column['type']}"
        if column["jsonPath"] == ".metadata.creationTimestamp":
            continue
        node = child_at(schema, column["jsonPath"])
        if node is None or node["type"] != column["type"]:
            yield f"column {column['name']}: {column['jsonPath']} is not a {column['type']}"


def crd_complaints(crd):
    """Everything the API server would refuse, in words."""
    spec, names = crd["spec"], crd["spec"]["names"]
    if crd["metadata"]["name"] != f"{names['plural']}.{spec['group']}":
        yield "metadata.name is not plural.group"
    if names["singular"] != names["kind"].lower() or spec["scope"] not in ("Namespaced", "Cluster"):
        yield "names"
    if sum(version["storage"] for version in spec["versions"]) != 1:
        yield "not one storage version"
    for version in spec["versions"]:
        root = dict(version["schema"]["openAPIV3Schema"])
        if root.get("type") != "object" or "default" in root:
            yield "the root is not an object, or has a default"
        properties = dict(root["properties"])
        for name in ("apiVersion", "kind"):
            if properties.pop(name)["type"] != "string":
                yield f"{name} is not a string"
        if set(properties.pop("metadata")) - {"type"}:
            yield "metadata says more than its type"
        yield from rule_complaints(root, "root")
        for name, node in properties.items():
            yield from node_complaints(node, name)
        yield from column_complaints(version)


def filled(schema, value):
    """`value` with nulls dropped and defaults filled in, as the API server does on writing."""
    if schema.get(FREE):
        return value
    if isinstance(value, list):
        return [filled(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    out = {name: item for name, item in value.items() if item is not None or name not in properties}
    for name, child in properties.items():
        if name not in out and "default" in child:
            out[name] = json.loads(json.dumps(child["default"]))
    children = {name: properties.get(name) or schema.get("additionalProperties", {}) for name in out}
    return {name: filled(children[name], item) for name, item in out.items()}

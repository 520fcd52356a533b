"""A stand-in for the API server's admission of one object: strict fields, defaults, schema, CEL.

CEL is evaluated by Google's own C++ implementation. What it does not have (cost limits, types taken from the
schema) is for the tests on a real API server.
"""

import functools

from cel_expr_python import cel
from structural import filled, unknown_fields, valid

from tunesmith.names import PLURALS


@functools.cache
def _environment():
    return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN})


@functools.cache
def _compiled(rule):
    return _environment().compile(rule)


def typed(schema, value):
    """Whole numbers as doubles where the schema says number, as the API server hands them to CEL."""
    if isinstance(value, list):
        return [typed(schema.get("items", {}), item) for item in value]
    if isinstance(value, dict):
        children = schema.get("properties", {})
        other = schema.get("additionalProperties", {})
        return {name: typed(children.get(name, other), item) for name, item in value.items()}
    return float(value) if schema.get("type") == "number" else value


def holds(rule, value, old=None):
    data = {"self": value} if old is None else {"self": value, "oldSelf": old}
    result = _compiled(rule).eval(data=data).value()
    return result is True


def rule_errors(schema, value, path="", old=None):
    """(path, message) of each CEL rule that does not hold."""
    for rule in schema.get("x-kubernetes-validations", []):
        if ("oldSelf" in rule["rule"]) == (old is None):
            continue
        if not holds(rule["rule"], value, old):
            yield path + rule.get("fieldPath", ""), rule["message"]
    if isinstance(value, dict):
        for name, item in value.items():
            child = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if child:
                yield from rule_errors(child, item, f"{path}.{name}")
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from rule_errors(schema.get("items", {}), item, f"{path}[{i}]")


def refusals(crd, document):
    """Why the API server would refuse a document; empty if it would not."""
    if document.get("apiVersion") != f"{crd['spec']['group']}/{crd['spec']['versions'][0]['name']}":
        return ["no matches for kind"]
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    body = {name: value for name, value in document.items() if name not in ("metadata", "apiVersion", "kind")}
    wrong = [f"unknown field {path}" for path in unknown_fields(schema, body)]
    body = filled(schema, body)
    wrong += valid(schema, body)
    if wrong:
        return wrong
    body["metadata"] = document["metadata"]
    return [f"{path}: {message}" for path, message in rule_errors(schema, typed(schema, body))]


def change_refusals(crd, old, new):
    """Why the API server would refuse to change one spec into another (transition rules of the spec)."""
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    values = [typed(spec, filled(spec, value)) for value in (new, old)]
    return [path for path, _ in rule_errors(spec, values[0], old=values[1])]


@functools.cache
def _compiled_policy(expression):
    config = cel.NewEnvConfigFromYaml("extensions:\n- name: optional\n")
    names = ("object", "oldObject", "request", "variables")
    return cel.NewEnv(config=config, variables=dict.fromkeys(names, cel.Type.DYN)).compile(expression)


def _decided(policies, document, namespace, old=None):
    """The policy of the document's kind if it looks at this change of `old`, and a function for its CEL."""
    plural = PLURALS[document["kind"]]
    policy = next(
        p["spec"]
        for p in policies
        if plural in p["spec"]["matchConstraints"]["resourceRules"][0]["resources"]
    )
    request = {"namespace": namespace, "operation": "CREATE" if old is None else "UPDATE"}
    data = {"object": document, "oldObject": old, "request": request, "variables": {}}

    def value(expression):
        result = _compiled_policy(expression).eval(data=data)
        assert result.type() != cel.Type.ERROR, result.value()
        return result.plain_value()

    assert request["operation"] in policy["matchConstraints"]["resourceRules"][0]["operations"]
    if not all(value(condition["expression"]) for condition in policy["matchConditions"]):
        return None, value
    for variable in policy["variables"]:
        data["variables"][variable["name"]] = value(variable["expression"])
    return policy, value


def policy_refusal(policies, document, namespace, old=None):
    """What the rendered policy of the document's kind says against it, or against what `old` becomes.

    Empty if it says nothing.
    """
    policy, value = _decided(policies, document, namespace, old)
    for validation in policy["validations"] if policy else ():
        if value(validation["expression"]) is not True:
            return value(validation["messageExpression"])
    return ""


def policy_refused(policies, document, namespace):
    """All that the policy refuses of a document."""
    return _decided(policies, document, namespace)[1]("variables.refused")

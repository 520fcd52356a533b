"""Values by which someone who may create jobs would get at more than the administrator's rules allow.

The one place for them: validation, the API server's rules and policy, the operator and the job's own
processes are all tried with these.
"""

from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed

# A rule as the chart's `allowed` has it.
ALLOWED = {
    "uris": ["s3://team-a", "hf://good", "file:///models"],
    "endpoints": ["https://llm.example/v1", "https://s3.example"],
    "secrets": ["team-a-*", "s3"],
    "runtimes": ["default"],
    "remoteCode": ["hf://good/code"],
    "pythonModules": ["judges"],
    "priorityClasses": ["*"],
    "tolerations": ["nvidia.com/*"],
    "nodeSelectors": ["pool", "topology.*/zone"],
}
# The same as a job's processes get it.
RULES = {name: ALLOWED[name] for name in ("uris", "endpoints", "remoteCode", "pythonModules")} | {
    "ownFiles": False
}

# Written otherwise than they are meant: no manifest may hold them.
ENCODED = [
    "file:///models/%2e%2e/proc/self/environ",
    "file:///models/%2E%2E/proc/self/environ",
    "file:///models/..%2fproc/self/environ",
    "file:///models%2f..%2fproc/self/environ",
    "file:///models/%2e./proc/self/environ",
    "file:///models/a%5c..%5cb",
    "file:///models/a%00b",
    "file:///models/a%0ab",
    "file:///models/%1b[31m",
    "file:///%6dodels/a",
    "file:///models/%70roc",
]

# Addresses of data and of models that the rules above do not allow.
URIS = [
    *ENCODED[:5],
    "file:///proc/self/environ",
    "/proc/self/environ",
    "file:///etc/passwd",
    "/etc/passwd",
    "file:///modelsx/a",
    "file:///models/../etc/passwd",
    "file:///models?/a",
    "file:///models#/a",
    "/models?/a",
    "file:///./proc/./self/environ",
    "/var/./run/secrets/token",
    "file://localhost/proc/self/environ",
    "s3://team-ab/x",
    "s3://team-b/secret-model",
    "hf://goodbye/model",
    "hf://other/model",
]

# Servers that the rules do not allow, some written like one of theirs.
ENDPOINTS = [
    "https://llm.example.evil.example/v1",
    "https://llm.example/v1x",
    "https://llm.example/v1/../admin",
    "https://llm.example/v1/%2e%2e/admin",
    "https://llm.example/v1%2f..%2fadmin",
    "http://llm.example/v1",
    "https://llm.example:444/v1",
    "https://evil.example/https://llm.example/v1",
    "https://evil.example#https://llm.example/v1",
    "https://llm.example\\.evil.example/v1",
    "https://llm.example.evil.example:443/v1",
    "https://llm.example%2eevil.example/v1",
    "https://llmxexample/v1",
    "https://llm.example:0444/v1",
    "https://llm.example/V1",
    "https://llm.example/",
    "https://llm.example?/v1",
    "https://s3.example:8443/",
]

# Functions of modules that nobody allowed.
FUNCTIONS = [
    "pydoc:pipepager",
    "os:system",
    "judgesx:judge",
    "subprocess:run",
    "tunesmith.cli:main",
]

SECRETS = ["root", "team-a", "xteam-a-s3", "s3x"]
RUNTIMES = ["big", "default2", "Default"]

# Classes of the cluster's own pods, which a star does not name.
PRIORITY_CLASSES = ["system-node-critical", "system-cluster-critical", "system-x"]
TOLERATIONS = [
    {"operator": "Exists"},
    {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
    {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
    {"key": "nvidiaxcom/gpu", "operator": "Exists"},
    {"key": "x\nnvidia.com/gpu", "operator": "Exists"},
]
NODE_LABELS = [
    "node-role.kubernetes.io/control-plane",
    "pools",
    "topologyxk8s.io/zone",
    "topology.k8s.io/zones",
]

# What the rule above allows, as it is.
MINE = {
    "FineTuneJob": changed(
        FINE_TUNE,
        {
            "spec.model.uri": "hf://good/model",
            "spec.datasets[0].uri": "s3://team-a/d",
            "spec.output.uri": "s3://team-a/o",
        },
    ),
    "RejectionSampleJob": changed(
        SAMPLE,
        {
            "spec.model.uri": "hf://good/code",
            "spec.prompts": {"uri": "s3://team-a/p", "chat": {}},
            "spec.verifier": {"python": {"function": "judges.law:judge"}},
            "spec.output.uri": "s3://team-a/o",
        },
    ),
    "DialogueGenJob": changed(
        DIALOGUE,
        {
            "spec.seeds.uri": "file:///models/seeds",
            "spec.endpoints.big.openai.baseUrl": "https://llm.example/v1",
            "spec.endpoints.small.transformers.model.uri": "hf://good/m",
            "spec.output.uri": "s3://team-a/o",
        },
    ),
}
_TUNE, _SAMPLE, _TALK = MINE.values()
_WANDB = {"project": "p"}

# The same, each with one thing that the rule does not allow.
MANIFESTS = [
    *(changed(_TUNE, {"spec.datasets[0].uri": uri}) for uri in URIS),
    *(changed(_TUNE, {"spec.model.uri": uri}) for uri in URIS),
    *(changed(_SAMPLE, {"spec.prompts.uri": uri}) for uri in URIS),
    *(changed(_TALK, {"spec.roles.answer.promptUri": uri}) for uri in URIS),
    *(changed(_TALK, {"spec.endpoints.big.openai.baseUrl": url}) for url in ENDPOINTS),
    *(changed(_TUNE, {"spec.storage.endpointUrl": url}) for url in ENDPOINTS),
    *(changed(_TUNE, {"spec.tracking": {"wandb": {**_WANDB, "baseUrl": url}}}) for url in ENDPOINTS),
    changed(_TUNE, {"spec.tracking": {"wandb": _WANDB}}),
    *(changed(_SAMPLE, {"spec.verifier.python.function": function}) for function in FUNCTIONS),
    changed(_TUNE, {"spec.model.trustRemoteCode": True}),
    changed(_TALK, {"spec.endpoints.small.transformers.model.trustRemoteCode": True}),
    *(changed(_TUNE, {"spec.storage": {"secretRef": {"name": name}}}) for name in SECRETS),
    *(
        changed(_TALK, {"spec.endpoints.big.openai.apiKeySecretRef": {"name": name, "key": "k"}})
        for name in SECRETS
    ),
    *(changed(_TUNE, {"spec.runtime": name}) for name in RUNTIMES),
    *(changed(_TALK, {"spec.placement": {"priorityClassName": name}}) for name in PRIORITY_CLASSES),
    *(changed(_TUNE, {"spec.placement": {"tolerations": [toleration]}}) for toleration in TOLERATIONS),
    *(changed(_SAMPLE, {"spec.placement": {"nodeSelector": {name: "x"}}}) for name in NODE_LABELS),
]


def _doubled(start: str, twice: str) -> str:
    """A template that doubles a value sixty times."""
    return (
        "{% set ns = namespace(x=" + start + ") %}{% for _ in range(60) %}"
        "{% set ns.x = " + twice + " %}{% endfor %}{{ ns.x }}"
    )


# Chat templates that take all time and memory there is or break what renders them, and what ends each.
TEMPLATES = {
    "a product": ("{{ 'a' * 10000000000 }}", "memory"),
    "a product for output": ("{{ 'a' * 5000000 }}", "characters"),
    "a power": ("{{ 9 ** (9 ** 9) }}", "processor time"),
    "a format": ("{{ '%10000000000d' % 1 }}", "memory"),
    "a format filter": ("{{ '%10000000000d' | format(1) }}", "memory"),
    "a format method": ("{{ '{:10000000000}'.format(1) }}", "memory"),
    "a centre": ("{{ 'a' | center(10000000000) }}", "memory"),
    "a width": ("{{ 'a'.ljust(10000000000) }}{{ 'a'.zfill(10000000000) }}", "memory"),
    "tabs": ("{{ '\\t'.expandtabs(2000000000) }}", "memory"),
    "an indent": ("{{ ('\\n' * 100000) | indent(100000, blank=true) }}", "memory"),
    "a replacement": ("{{ ('a' * 100000) | replace('a', 'b' * 100000) }}", "memory"),
    "a join": ("{{ range(100000) | join('a' * 100000) }}", "memory"),
    "JSON": ("{{ [[[[1]]]] | tojson(indent=2000000000) }}", "memory"),
    "a batch": ("{{ [1] | batch(10000000000, 0) | list }}", "memory"),
    "slices": ("{{ [1] | slice(10000000000) | list }}", "processor time|memory"),
    "doubled text": (_doubled("'aa'", "ns.x + ns.x"), "memory"),
    "doubled by tilde": (_doubled("'aa'", "ns.x ~ ns.x"), "memory"),
    "a doubled list": (_doubled("[0, 1]", "ns.x + ns.x"), "memory"),
    "a nested list": (_doubled("[0, 1]", "[ns.x, ns.x]"), "memory|processor time"),
    "nested lists compared": (
        _doubled("[[0], [0]]", "[[ns.x[0], ns.x[0]], [ns.x[1], ns.x[1]]]").replace("{{ ns.x }}", "")
        + "{{ ns.x[0] == ns.x[1] }}",
        "processor time",
    ),
    "a nested dictionary": (_doubled("{}", "{'a': ns.x, 'b': ns.x}"), "memory|processor time"),
    "a captured block": (
        "{% set x %}aa{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40,
        "memory",
    ),
    "loops in loops": (
        "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4,
        "processor time",
    ),
    "a loop that writes": (
        "{% for a in range(99999) %}{% for b in range(99999) %}aaaaaaaaaa{% endfor %}{% endfor %}",
        "memory|characters|processor time",
    ),
    "one text, sought often": (
        "{% set x = 'a' * 9999999 %}{% for a in range(99999) %}{% if 'ab' in x %}{% endif %}{% endfor %}",
        "processor time",
    ),
    "a sum of lists": (
        "{{ ([range(9999) | list] * 99999) | sum(start=[]) | length }}",
        "memory|processor time",
    ),
    "chapters of nonsense": ("{{ lipsum(n=99999, min=9999, max=99999) }}", "memory|processor time"),
    "tags": ("{{ ('<' * 9999999) | striptags }}", "characters|processor time"),
    "wrapped words": ("{{ ('a' * 9999999) | wordwrap(1) }}", "memory|characters|processor time"),
    "a macro in itself": ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "too deeply"),
    "two of itself": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "processor time",
    ),
    "a loop in itself": ("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "too deeply"),
    "brackets": ("{{ " + "(" * 10000 + "1" + ")" * 10000 + " }}", "too deeply"),
    "lists in lists": ("{{ " + "[" * 900 + "]" * 900 + " }}", "too deeply|memory|refuses"),
    "many loops": ("{% for a in [1] %}" * 200 + "{% endfor %}" * 200, "refuses"),
    "a long range": ("{% for a in range(10 ** 12) %}{% endfor %}", "Range too big"),
    "a long source": ("{# " + "a" * 1_000_001 + " #}", "characters"),
    "a long refusal": ("{{ raise_exception('a' * 9999999) }}", "a{1000}"),
    "half a character": ("{{ '\\ud800' }}", "half a character"),
    "a division": ("{{ 1 // 0 }}", "division"),
    "Python's insides": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|undefined"),
}

# Prompts of a dialogue's roles that would make a long one of a short dialogue.
PROMPTS = ["{history}" * 21, "{{history}} {history}" * 21, "{question}{answer}" + "{history} " * 29_000]

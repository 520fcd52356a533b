"""Values by which someone who may create jobs would get at more than the administrator's rules allow.

The one place for them: validation, the API server's rules and policy, the operator and the job's own
processes are all tried with these.
"""

from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed

# A rule as the chart's `allowed` has it.
ALLOWED = {
    "uris": ["s3://team-a", "hf://good", "hf://datasets/good", "file:///models"],
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
    "hf://datasets/goodbye/set",
    "hf://datasets/other/set@good",
    "hf://good@other/x",
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

# Hosts of this machine, its network, the cluster and the cloud, some written otherwise than they are meant.
INSIDE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "::1", "::", "localhost",
    "LOCALHOST.", "x.localhost", "169.254.169.254", "0xa9fea9fe", "10.0.0.1", "172.16.0.1", "192.168.0.1",
    "100.64.0.1", "192.0.2.1", "224.0.0.1", "255.255.255.255", "fd00:ec2::254", "fe80::1", "fe80::1%lo",
    "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1",
    "kubernetes", "kubernetes.default.svc", "s3.team-b.svc.cluster.local", "metadata.google.internal",
    "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1",
]  # fmt: skip

# Where an answer of https://hub.example/m may not lead.
REDIRECTS = [
    *(f"https://{f'[{host}]' if ':' in host else host}/x" for host in INSIDE),
    "https://hub.example:8443/m@10.0.0.1/",
    "https://public.example@127.0.0.1/x",
    "https://127.0.0.1#@public.example/x",
    "http://hub.example/m/x",
    "http://public.example/x",
    "http://1.1.1.1/x",
    "ftp://public.example/x",
    "file:///etc/passwd",
    "//10.0.0.1/x",
    "",
]

# Characters that steer a terminal, or make the rest of a line read in another order.
STEERING = "\x1b\x9b\x7f\u202e\u2066\r"

# Functions of modules that nobody allowed.
FUNCTIONS = [
    "pydoc:pipepager",
    "os:system",
    "judgesx:judge",
    "subprocess:run",
    "tunesmith.cli:main",
]

# Revisions that lead out of the hub's cache.
REVISIONS = [
    "..", "../x", "a/../../x", "/etc/x", "a//x", "./x", "a/", "-x", ".git/x", "a\\..\\x", "a%2f..", "a b",
    "main\n", "main\x00", "",
]  # fmt: skip

# Arguments of vLLM that open a file, an address or a module, or say what others than the manifest decide.
ENGINE_ARGUMENTS = {
    "model": "/proc/self",
    "tokenizer": "hf://evil/tokenizer",
    "hf_config_path": "/etc",
    "served_model_name": "x",
    "trust_remote_code": True,
    "allowed_local_media_path": "/",
    "allowed_media_domains": ["169.254.169.254"],
    "download_dir": "/etc",
    "load_format": "pt",
    "model_loader_extra_config": {"pattern": "/proc"},
    "config_format": "x",
    "model_weights": "s3://team-b/model",
    "model_class_overrides": {"LlamaForCausalLM": "os:system"},
    "generation_config": "/etc",
    "override_generation_config": {"eos_token_id": 0},
    "hf_overrides": {"auto_map": {"AutoConfig": "evil/repo--x.X"}},
    "hf_token": "hf_x",
    "revision": "x",
    "code_revision": "x",
    "speculative_config": {"model": "hf://evil/draft", "method": "draft_model"},
    "spec_model": "evil/draft",
    "logits_processors": ["os:system"],
    "io_processor_plugin": "x",
    "reasoning_parser_plugin": "/tmp/x.py",
    "worker_cls": "os.system",
    "worker_extension_cls": "os.system",
    "scheduler_cls": "os.system",
    "distributed_executor_backend": "os.system",
    "default_mm_loras": {"image": "/etc"},
    "kv_transfer_config": {"kv_connector": "x", "kv_connector_module_path": "os"},
    "kv_events_config": {"endpoint": "tcp://evil.example:1"},
    "ec_transfer_config": {"ec_connector_module_path": "os"},
    "weight_transfer_config": {"backend": "x"},
    "otlp_traces_endpoint": "http://evil.example",
    "compilation_config": {"backend": "os.system", "cache_dir": "/etc"},
    "profiler_config": {"torch_profiler_dir": "/etc"},
    "log_config_file": "/etc/x",
    "logging_config": {"file": "/etc/x"},
    "mm_encoder_fp8_scale_path": "/etc/x",
    "mm_encoder_fp8_scale_save_path": "/etc/x",
    "additional_config": {},
    "master_addr": "evil.example",
    "data_parallel_address": "evil.example",
    "nnodes": 2,
    "pipeline_parallel_size": 2,
    "device_ids": [0],
    "ray_workers_use_nsight": True,
    "lora_modules": ["x=/etc"],
    "plugins": ["x"],
    "chat_template": "/etc/passwd",
    "maxNumSeqs": 4,
    "__class__": 1,
    "max_num_seqs\x1b[31m": 1,
}
# The same hidden in a value of an argument that may be set.
ENGINE_VALUES = {
    "quantization": "/etc/passwd",
    "attention_backend": "os.system",
    "kv_cache_dtype": "../x",
    "moe_backend": "os:system",
    "spec_method": "custom_class",
    "model_impl": "terratorch",
    "performance_mode": {"model": "x"},
    "max_num_seqs": "4",
    "safetensors_load_strategy": "torchao",
}

# Sections of a DeepSpeed configuration that write where they say, send, or run what they name.
DEEPSPEED_SECTIONS = [
    "aio", "autotuning", "checkpoint", "comet", "comms_logger", "compile", "compression_training",
    "csv_monitor", "data_efficiency", "eigenvalue", "elasticity", "flops_profiler", "hybrid_engine", "nebula",
    "tensorboard", "torch_compile", "wandb", "Zero_optimization",
]  # fmt: skip

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
    "many loops": ("{% for a in [1] %}" * 200 + "{% endfor %}" * 200, "refuses|processor time"),
    "a long range": ("{% for a in range(10 ** 12) %}{% endfor %}", "Range too big"),
    "a long source": ("{# " + "a" * 1_000_001 + " #}", "characters"),
    "a long refusal": ("{{ raise_exception('a' * 9999999) }}", "a{1000}"),
    "half a character": ("{{ '\\ud800' }}", "a lone surrogate"),
    "a division": ("{{ 1 // 0 }}", "division"),
    "Python's insides": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|undefined"),
}

# Prompts of a dialogue's roles that would make a long one of a short dialogue.
PROMPTS = ["{history}" * 21, "{{history}} {history}" * 21, "{question}{answer}" + "{history} " * 29_000]

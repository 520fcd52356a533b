"""Values by which someone who may create jobs would get at more than the administrator's rules allow.

The one place for them: validation, the API server's rules, the operator and the job's own processes are all
tried with these.
"""

RULES = {
    "uris": ["s3://team-a", "hf://good", "file:///models"],
    "endpoints": ["https://llm.example/v1", "https://s3.example"],
    "remoteCode": ["hf://good/code"],
    "pythonModules": ["judges"],
    "ownFiles": False,
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
]

# Functions of modules that nobody allowed.
FUNCTIONS = [
    "pydoc:pipepager",
    "os:system",
    "judgesx:judge",
    "subprocess:run",
    "tunesmith.cli:main",
]

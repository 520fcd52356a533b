"""Chat templates are rendered in a process of their own, within limits, and as transformers renders them."""

import ast
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hostile import TEMPLATES
from tests.cases import each
from tests.fixtures.tokenizers import BY_NAME, template_of, with_template

import tunesmith
from tunesmith.data.parallel_encoder import EncodingSettings, encode_all
from tunesmith.errors import ModelError, TunesmithError
from tunesmith.processes import Process
from tunesmith.tokens import bounded
from tunesmith.tokens.bounded import BoundedTemplate, OverLimit
from tunesmith.tokens.conversation import Conversation, Message
from tunesmith.tokens.encode import RecordError

pytestmark = pytest.mark.engine
ASKED = [Message("user", "hello")]
CHATML = template_of(BY_NAME["chatml"])
TURNS = [{"role": "user", "content": "hello"}]
WAYS = (
    *("apply_chat_template", "render_jinja_template", "_compile_jinja_template", "pipeline"),
    *("from_string", "root_render_func", "render_all"),
)
HELLO = "<|im_start|>user\nhello<|im_end|>\n"


@pytest.fixture
def little(monkeypatch):
    """Limits that are soon reached."""
    monkeypatch.setattr(bounded, "SECONDS", 0.4)
    monkeypatch.setattr(bounded, "MEMORY_BYTES", 64 << 20)
    monkeypatch.setattr(bounded, "_WAITS", 1_000_000)


# --- What a template cannot do ----------------------------------------------------------------------------


@pytest.mark.usefixtures("little")
@each("source, ends", TEMPLATES.values(), ids=list(TEMPLATES))
def test_a_hostile_template_ends_with_its_cause_and_takes_none_of_our_memory(source, ends):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chat = with_template("chatml", source)
    with pytest.raises(TunesmithError, match=rf"(?s)chat template.*(?:{ends})"):
        chat.prompt_text(ASKED)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.usefixtures("little")
def test_the_message_names_the_file_and_what_to_do(tmp_path):
    with_template("chatml", TEMPLATES["a product"][0]).tokenizer.save_pretrained(tmp_path)
    chat = type(with_template("chatml", None)).load(tmp_path)
    said = r"^The chat template in \S+/chat_template\.jinja needs more than 64 MiB of memory, far more .* Fix"
    conversation = Conversation((*ASKED, Message("assistant", "a")))
    for ask in (
        lambda: chat.prompt_text(ASKED),
        lambda: chat.whole_prompt_ids(ASKED),
        lambda: chat.stop_ids and chat.shape,
        lambda: chat.samples(conversation, train_on="allAssistant", max_length=100),
        lambda: encode_all(chat, EncodingSettings(100), [conversation]),
    ):
        with pytest.raises(ModelError, match=said):
            ask()


@pytest.mark.usefixtures("little")
def test_templates_that_turn_hostile_later_end_the_job_too():
    turns_bad = CHATML + "{% if messages[0].content == 'now' %}{{ 'a' * 10000000000 }}{% endif %}"
    chat = with_template("chatml", turns_bad)
    good = [Conversation((*ASKED, Message("assistant", f"a{n}"))) for n in range(20)]
    encode_all(chat, EncodingSettings(100), good)
    bad = Conversation((Message("user", "now"), Message("assistant", "a")))
    with pytest.raises(ModelError, match="memory"):
        encode_all(chat, EncodingSettings(100), [*good, bad])


def test_what_transformers_renders_is_bounded_too(little):
    chat = with_template("chatml", CHATML)
    chat.prompt_text(ASKED)
    chat.tokenizer.chat_template = TEMPLATES["doubled text"][0]
    with pytest.raises(OverLimit, match="memory"):
        chat.tokenizer.apply_chat_template(TURNS)


def test_a_process_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(bounded, "_WAITS", 1e-6)
    with pytest.raises(OverLimit, match="processor time"):
        BoundedTemplate(CHATML).render(messages=TURNS)


def test_limits_grow_with_the_conversation():
    text = "龘" * 3_000_000
    template = BoundedTemplate(
        "{% for m in messages %}{{ m.content ~ m.content.strip() | tojson }}{% endfor %}"
    )
    assert template.render(messages=[{"role": "user", "content": text}]) == text + f'"{text}"'


def test_there_is_no_other_way_to_render_a_template():
    """Only the worker has more of Jinja than its nodes and errors; the reports' templates are our own."""
    root = Path(tunesmith.__file__).parent
    nodes = {
        path.relative_to(root).as_posix(): list(ast.walk(ast.parse(path.read_text("utf-8"))))
        for path in root.rglob("*.py")
    }
    users = {
        (file, alias.name)
        for file, found in nodes.items()
        for node in found
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if "jinja2" in (getattr(node, "module", "") or alias.name)
    }
    harmless = {("report/finetune.py", "jinja2")}
    assert {
        (file, name)
        for file, name in users - harmless
        if name not in ("nodes", "TemplateError") and file != "tokens/template_worker.py"
    } == set()
    calls = {
        (name, file)
        for file, found in nodes.items()
        for node in found
        if isinstance(node, ast.Call)
        and (name := getattr(node.func, "id", getattr(node.func, "attr", ""))) in WAYS
    }
    assert calls == {
        ("apply_chat_template", "tokens/renderer.py"),
        ("from_string", "tokens/template_worker.py"),
        ("root_render_func", "tokens/template_worker.py"),
        ("root_render_func", "tokens/template_prefixes.py"),  # which the worker calls
        ("render_all", "tokens/template_worker.py"),
    }


def test_transformers_has_no_other_way_either():
    """Seen with transformers 5.19: templates are compiled by the one function that is replaced."""
    import transformers

    root = Path(transformers.__file__).parent
    texts = {str(path.relative_to(root)): path.read_text("utf-8") for path in root.rglob("*.py")}
    users = {name for name, text in texts.items() if "import jinja2" in text or "from jinja2" in text}
    assert users == {"utils/chat_template_utils.py"}
    tree = ast.parse(texts["utils/chat_template_utils.py"])
    calls = [
        (function.name, name)
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and (name := getattr(node.func, "id", getattr(node.func, "attr", "")))
        in ("ImmutableSandboxedEnvironment", "from_string", "_cached_compile_jinja_template")
    ]
    assert calls == [
        ("_compile_jinja_template", "_cached_compile_jinja_template"),
        ("_cached_compile_jinja_template", "ImmutableSandboxedEnvironment"),
        ("_cached_compile_jinja_template", "from_string"),
    ]


# --- The process ------------------------------------------------------------------------------------------


def running():
    """The process that renders for this one."""
    BoundedTemplate(CHATML).render(messages=TURNS)
    return bounded._process._process._process


def test_a_process_that_was_killed_is_started_again():
    template = BoundedTemplate(CHATML)
    assert template.render(messages=TURNS) == HELLO
    first = running()
    first.kill()
    first.wait()
    assert template.render(messages=TURNS) == HELLO
    assert running().pid != first.pid


def test_an_interrupted_request_is_not_answered_to_the_next(monkeypatch):
    template, line = BoundedTemplate("{{ messages[0].content }}"), Process._line

    def interrupted(self, deadline):
        raise KeyboardInterrupt

    monkeypatch.setattr(Process, "_line", interrupted)
    with pytest.raises(KeyboardInterrupt):
        template.render(messages=TURNS)
    monkeypatch.setattr(Process, "_line", line)
    assert template.render(messages=[{"role": "user", "content": "next"}]) == "next"


def test_many_threads_get_their_own_texts():
    template, wrong = BoundedTemplate("{{ messages[0].content }}"), []

    def ask(name):
        for n in range(50):
            text = f"{name} {n}"
            if template.render(messages=[{"role": "user", "content": text}]) != text:
                wrong.append(text)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_fork_has_a_process_of_its_own():
    mine, (read, write) = running().pid, os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(running().pid).encode())
        bounded._process.end()
        os._exit(0)
    os.waitpid(child, 0)
    theirs = int(os.read(read, 100))
    assert theirs != mine == running().pid


def test_more_templates_than_are_kept():
    templates = [BoundedTemplate(f"{n}" + "{{ x }}") for n in range(40)]
    for _ in range(2):
        assert [template.render(x="!") for template in templates] == [f"{n}!" for n in range(40)]


def test_no_secret_is_in_its_environment(monkeypatch):
    bounded._process.end()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-mine")
    assert b"secret-of-mine" not in Path(f"/proc/{running().pid}/environ").read_bytes()


PARENT = """
import sys, threading
from tunesmith.tokens import bounded
bounded.SECONDS = 3
bounded.BoundedTemplate("x").render(messages=[])
print(bounded._process._process._process.pid, flush=True)
loop = "{% for a in range(99999) %}"
endless = bounded.BoundedTemplate(loop + loop + "{% endfor %}{% endfor %}")
threading.Thread(target=endless.render, daemon=True).start()
sys.stdin.read()
"""


@each("sign", [signal.SIGTERM, signal.SIGKILL, None])
def test_it_ends_with_its_parent(sign):
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.send_signal(sign) if sign else parent.stdin.close()
    deadline = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process):
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_a_refusal_is_the_templates_own_and_concerns_the_record_alone():
    chat = with_template("chatml", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RecordError, match=r"rejects this conversation: roles must alternate$"):
        chat.prompt_text(ASKED)

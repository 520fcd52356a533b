"""The commands of README and docs: each is run, here or on a cluster, or a line above it says why not.

tests/integration/test_docs_run.py runs them here, tests/cluster/test_install_docs.py on a cluster.
"""

import subprocess

from tests.cases import each
from tests.cluster.helm_command import parser
from tests.docs_blocks import CLUSTER_PROGRAMS, PAGES, PROGRAMS, Block, blocks, files

SHELL = [block for page in PAGES for block in blocks(page)]
RUN = [block for block in SHELL if block.on_cluster]
CHARTS = ("charts/tunesmith", "oci://$TUNESMITH_REGISTRY/charts/tunesmith")


@each("block", SHELL, ids=lambda block: block.id)
def test_a_block_is_one_that_a_shell_can_read(block):
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@each("block", SHELL, ids=lambda block: block.id)
def test_a_block_is_run_here_or_on_a_cluster_or_says_why_not(block):
    used = block.programs
    if block.reason:
        assert len(block.reason.split()) >= 5, "a reason is a sentence"
        assert not used & CLUSTER_PROGRAMS or "github.com/" in block.text, f"a cluster can run it: {used}"
    else:
        assert used <= CLUSTER_PROGRAMS or used <= PROGRAMS, f"neither here nor on a cluster: {used}"


def test_what_a_command_prints_is_compared_or_says_where_it_was_seen():
    shown = [block for page in PAGES for block in blocks(page, "console")]
    assert {block.page for block in shown if not block.reason} == {"docs/migrate.md"}
    assert all(len(block.reason.split()) >= 5 for block in shown if block.reason)


@each("block", RUN, ids=lambda block: block.id)
def test_what_helm_is_asked_is_what_the_test_on_a_cluster_can_do(block):
    for words in block.commands():
        if words[0] == "helm":
            asked = parser().parse_args(words[1:])
            assert asked.name == "tunesmith", words
            assert asked.command != "upgrade" or asked.chart in CHARTS, words
            assert asked.command != "upgrade" or ("oci:" in asked.chart) == bool(asked.version), words


@each("block", RUN, ids=lambda block: block.id)
def test_nothing_fails_because_it_was_done_before(block):
    """`helm install` and `kubectl create` fail the second time, after a mistake in between too."""
    for words in block.commands():
        assert words[:2] != ["helm", "install"]
        assert words[:2] != ["kubectl", "create"] or "--dry-run=client" in words, words


def test_both_pages_install_and_what_is_removed_was_installed():
    sections = {(block.page, block.section) for block in RUN}
    assert sections >= {
        ("README.md", "On a cluster"),
        ("docs/install.md", "Install on a cluster"),
        ("docs/install.md", "Remove"),
    }


def test_files_that_commands_name_are_on_the_page():
    assert set(files("docs/install.md")) == {"init-pytorch.yaml", "values.yaml"}


def test_no_page_gives_a_second_file_the_same_name():
    """But for values.yaml, which is one's own; the pages are run in one folder."""
    named = [name for page in PAGES for name in files(page) if name != "values.yaml"]
    assert sorted(set(named)) == sorted(named)


def test_a_heading_in_a_block_is_no_heading_and_a_reason_is_of_its_own_block(tmp_path, monkeypatch):
    text = (
        "# A\n```sh\n# not a heading\nx\n```\n## B\n<!-- not run: because -->\n```sh\ny\n```\n```sh\nz\n```\n"
    )
    (tmp_path / "page.md").write_text(text)
    monkeypatch.setattr("tests.docs_blocks.ROOT", tmp_path)
    assert blocks("page.md") == [
        Block("page.md", "A", "# not a heading\nx\n"),
        Block("page.md", "B", "y\n", "because"),
        Block("page.md", "B", "z\n"),
    ]

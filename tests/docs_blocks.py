"""The blocks of a page, by section; one below a line `<!-- not run: REASON -->` is not run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PART = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|"
    r"^(?:<!-- not run: (?P<reason>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
CLUSTER_PROGRAMS = {"kubectl", "helm"}
# Others are run here, in a folder that has nothing but what a page says to make.
PROGRAMS = {"tunesmith", "cp", "grep", "."}
FIRST = ["README.md", "docs/commands.md", "CONTRIBUTING.md", "DEVELOPMENT.md", "SECURITY.md"]
PAGES = [
    *dict.fromkeys([*FIRST, *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")))])
]
"""Where commands and manifests are shown to people, in the order in which somebody reads them."""
_FILE = re.compile(r"# ([\w.-]+\.yaml)\n")


@dataclass(frozen=True)
class Block:
    """One block: its page, the heading it is under, and why it is not run, if it is not."""

    page: str
    section: str
    text: str
    reason: str = ""
    language: str = "sh"

    @property
    def id(self) -> str:
        """Page, section and first line."""
        return f"{self.page}, {self.section}: {self.text.splitlines()[0]}"

    @property
    def programs(self) -> set[str]:
        """The programs that it calls; `export` is the shell's own."""
        return {words[0] for words in self.commands()} - {"export"}

    @property
    def on_cluster(self) -> bool:
        """Whether it is run on a cluster."""
        return not self.reason and self.language == "sh" and self.programs <= CLUSTER_PROGRAMS

    @property
    def here(self) -> bool:
        """Whether it is run on this machine."""
        return not self.reason and self.language == "sh" and not self.on_cluster

    def commands(self) -> list[list[str]]:
        """Return each command as words; a pipe's parts are commands of their own."""
        text = re.sub(r"\s#.*$", "", self.text.replace("\\\n", " "), flags=re.MULTILINE)
        lexer = shlex.shlex(text.replace("\n", " ;\n"), posix=True, punctuation_chars="|;&")
        lexer.whitespace_split = True
        found: list[list[str]] = [[]]
        for word in lexer:
            if set(word) <= set("|;&"):
                found.append([])
            else:
                found[-1].append(word)
        return [words for words in found if words]


def blocks(page: str, language: str = "sh") -> list[Block]:
    """Return the blocks of a page of the repository, in its order."""
    section, found = "", []
    for part in _PART.finditer((ROOT / page).read_text("utf-8")):
        if part["heading"]:
            section = part["heading"]
        elif part["language"] == language:
            found.append(Block(page, section, part["text"], part["reason"] or "", language))
    return found


def files(page: str) -> dict[str, str]:
    """Return what a page says to write into files: YAML whose first line is a comment with a file's name."""
    texts = [block.text for block in blocks(page, "yaml")]
    return {name[1]: text for text in texts if (name := _FILE.match(text))}

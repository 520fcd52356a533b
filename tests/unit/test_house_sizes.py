"""The sizes that CONTRIBUTING asks for, measured."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ("src", "operator", "bench")
REASON = "Over 300 lines: "
"""How the docstring of a longer file says why it is."""


@cache
def modules():
    """The text and the tree of every module, by its path."""
    paths = [path for folder in PROGRAM for path in sorted((ROOT / folder).rglob("*.py"))]
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in paths}
    return {path: (text, ast.parse(text)) for path, text in texts.items()}


def functions():
    """The lines of every function, by where it is."""
    return {
        f"{path}, {node.name}": node.end_lineno - node.lineno + 1
        for path, (_, tree) in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_most_functions_are_short():
    lines = list(functions().values())
    assert median(lines) <= 8
    assert quantiles(lines, n=10)[-1] <= 20


def test_no_function_is_longer_than_a_screen():
    assert {where: lines for where, lines in functions().items() if lines > 60} == {}


def test_a_long_file_says_why_it_is():
    for path, (text, tree) in modules().items():
        lines, reason = len(text.splitlines()), REASON in (ast.get_docstring(tree) or "")
        assert lines <= 300 or reason, f"{path} has {lines} lines: split it, or say why not: {REASON!r}"


def test_a_class_has_a_name_of_its_own():
    places = defaultdict(list)
    for path, (_, tree) in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}

"""JSON is valid whatever is in it and wherever it is printed, and its encoder is one."""

import ast
import io
import json
import math
import re
import sys
from pathlib import Path

import pytest

from elman import cli
from elman.cli.output import print_json

CONTENT = {
    "figures": [math.inf, -math.inf, math.nan, 1.5, (2, {"a": math.nan})],
    "letters": "é 床 😀",
    "file": "caf\udce9.txt",  # as Python reads a name that is not UTF-8
}


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "latin-1", "ascii"])
def test_json_is_valid_and_loses_no_letter(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    print_json(CONTENT)
    sys.stdout.flush()

    def refused(constant):
        raise AssertionError(f"{constant} is no JSON")

    (line,) = written.getvalue().decode("utf-8").splitlines()
    read = json.loads(line, parse_constant=refused)
    assert read == CONTENT | {"figures": [None, None, None, 1.5, [2, {"a": None}]]}


def library():
    """The files below elman that are no part of the command line, and what is in them."""
    root = Path(cli.__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        if "cli" not in path.relative_to(root).parts and path.name != "__main__.py":
            yield path.relative_to(root), list(ast.walk(ast.parse(path.read_text("utf-8"))))


def called(node):
    """The name of the function that a node calls, or nothing."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "id", getattr(function, "attr", ""))


def test_the_library_prints_nothing_and_knows_no_command_line():
    scripts = {Path("data/checksums.py"), Path("bench/isolated.py")}  # each a program of its own
    for path, nodes in library():
        assert path in scripts or "print" not in map(called, nodes), path
        names = [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
        names += [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
        assert not [name for name in names if name.startswith("elman.cli")], path


def test_the_library_names_settings_not_flags():
    for path, nodes in library():
        told = [n for n in nodes if isinstance(n, ast.Raise) or called(n) in ("warning", "info")]
        texts = [
            n.value for each in told for n in ast.walk(each)
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]  # fmt: skip
        assert not [text for text in texts if re.search(r"(^|[\s(`])--[a-z]", text)], path


def test_commands_print_json_in_one_place():
    for path in Path(cli.__file__).parent.rglob("*.py"):
        if path.name != "output.py":
            names = {
                node.attr
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "json"
            }
            assert not names & {"dumps", "dump"}, f"{path.name}: elman.cli.output does that"

"""JSON is valid whatever is in it and wherever it is printed, and its encoder is one."""

import ast
import io
import json
import math
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


def test_commands_print_json_in_one_place():
    for path in Path(cli.__file__).parent.rglob("*.py"):
        if path.name != "output.py":
            names = {
                node.attr
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "json"
            }
            assert not names & {"dumps", "dump"}, f"{path.name}: elman.cli.output does that"

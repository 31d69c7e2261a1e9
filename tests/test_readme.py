"""What the documents show must run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import elman
from elman import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(page, language):
    text, fenced = page.read_text(encoding="utf-8"), rf"^```{language}\n(.*?)^```"
    # A fence that closes looks like one that opens without a language: take them in turn.
    return re.findall(rf"{fenced}$|^```\w+\n.*?^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_documents_runs(page):
    for block in _blocks(page, "python"):
        names = {"__name__": "pasted"}  # each block alone
        exec(compile(block, page.name, "exec"), names)
        for cell in names.values():
            pasted = getattr(cell, "__module__", "") == "pasted"
            if pasted and isinstance(cell, type) and issubclass(cell, elman.Cell):
                elman.Recurrent(cell(3, 4))(torch.randn(2, 1, 3))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).stat().st_size > 0, target


def test_commands_in_the_readme_are_understood(capsys):
    blocks = "".join(_blocks(ROOT / "README.md", ""))
    commands = re.findall(r"^elman ([a-z]+(?: language-model)?)", blocks, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        assert cli.run([*command.split(), "--help"]) == 0, command
    capsys.readouterr()

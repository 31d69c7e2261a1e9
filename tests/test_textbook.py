"""What the textbook page claims holds, in English and in Chinese."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

import elman
from elman.cli import program

ROOT = Path(__file__).parent.parent
PAGES = ENGLISH, CHINESE = ROOT / "docs/textbook.md", ROOT / "docs/textbook.zh.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def _blocks(page, language):
    """The fenced blocks in that language: what each is about, its first line, its code."""
    text = page.read_text(encoding="utf-8")
    return [
        (_about(text[: match.start()]), text.count("\n", 0, match.start(2)), match[2])
        for match in FENCE.finditer(text)
        if match[1] == language
    ]


def _about(text):
    """The claim that a block under ``text`` shows: what was last printed bold."""
    return (re.findall(r"\*\*(.+?)\*\*", FENCE.sub("", text)) or [""])[-1]


(_, _, IMPORTS), *CLAIMS = _blocks(ENGLISH, "python")


@pytest.fixture
def _own_defaults():
    before = torch.get_default_dtype()
    with elman.engine("auto"):  # what is forced within ends with it
        yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("_own_defaults")
@pytest.mark.parametrize("claim, line, code", CLAIMS, ids=[claim for claim, _, _ in CLAIMS])
def test_the_claim_holds(claim, line, code):
    assert "assert" in code
    names = {"__name__": "textbook"}
    exec(IMPORTS, names)
    exec(compile("\n" * line + code, ENGLISH, "exec"), names)


def _parsed(words):
    """Parse a command line as ``elman`` does, without running it."""
    command, context = program.command(), None
    while True:
        context = command.make_context(words[0], words[1:], parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not rest:
            return
        name, command, rest = command.resolve_command(context, rest)
        words = [name, *rest]


COMMANDS = sorted(
    {
        command
        for page in PAGES
        for command in [
            *"".join(code for _, _, code in _blocks(page, "")).splitlines(),
            *re.findall(r"`(elman [^`]+)`", page.read_text(encoding="utf-8")),
        ]
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_is_there_with_its_options(command):
    words = shlex.split(command)
    _parsed(words)
    for path in (word for word in words if word.startswith("benchmarks/")):
        assert (ROOT / path).is_file()


def test_the_chinese_page_has_the_same_snippets():
    english, chinese = (FENCE.findall(page.read_text(encoding="utf-8")) for page in PAGES)
    assert len(english) > 50
    assert chinese == english


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_heading(page):
    links = re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    assert len(links) > 15
    for target, anchor in links:
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
        assert anchor in anchors

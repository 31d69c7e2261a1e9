"""Every file is read and written as UTF-8 by name: a locale of another encoding changes nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for name in ("elman", "benchmarks", "examples") for path in (ROOT / name).rglob("*.py")
)
SUBPROCESS = {"run", "Popen", "check_output", "check_call"}


def nameless(source: str) -> Iterator[ast.Call]:
    """The calls that read or write text without the name of an encoding."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and _is_nameless(call):
            yield call


def _is_nameless(call: ast.Call) -> bool:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if method else getattr(call.func, "id", "")
    if "encoding" in named:
        return False
    if method and name == "read_text":
        return not call.args
    if method and name == "write_text":
        return len(call.args) < 2
    if name in SUBPROCESS:
        return _is_true(named.get("text")) or _is_true(named.get("universal_newlines"))
    if name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
        # of a path, the mode comes first; of a function, what is opened
        first = 0 if method and name == "open" else 1
        mode = named.get("mode", call.args[first] if len(call.args) > first else None)
        if mode is None:  # text, but for temporary files
            return name == "open" and (not method or not call.args)
        return isinstance(mode, ast.Constant) and _is_text(mode.value)
    return False


def _is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def _is_text(mode: object) -> bool:
    return isinstance(mode, str) and set(mode) <= set("rwax+t")


@pytest.mark.parametrize(
    ("call", "is_nameless"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text('a')", True),
        ("path.write_text('a', encoding='utf-8')", False),
        ("path.open()", True),
        ("path.open('a')", True),
        ("path.open('rb')", False),
        ("open('a')", True),
        ("open('a', 'wb')", False),
        ("open('a', encoding='utf-8')", False),
        ("os.open(path, os.O_RDONLY)", False),
        ("os.fdopen(handle, 'w')", True),
        ("Run.open(path)", False),
        ("subprocess.run(['a'], text=True)", True),
        ("subprocess.run(['a'])", False),
    ],
)
def test_what_counts_as_nameless(call, is_nameless):
    assert bool(list(nameless(call))) is is_nameless


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_encodings_are_named(path):
    calls = nameless(path.read_text(encoding="utf-8"))
    assert [f"line {call.lineno}" for call in calls] == [], "say encoding='utf-8'"

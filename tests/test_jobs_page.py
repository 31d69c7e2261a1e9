"""The page of jobs: its table is what is recorded, and what it names is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from elman.data.corpora import CORPORA
from elman.tasks import TASKS

ROOT = Path(__file__).parents[1]


def _script():
    spec = importlib.util.spec_from_file_location("jobs", ROOT / "benchmarks" / "jobs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_is_recorded():
    script = _script()
    assert script.PAGE.read_text("utf-8") == script.page()
    for row in script.ROWS:
        if (result := script.recorded(row.recipe)) is not None:
            assert script.found(result["figures"], row.figure[0]) is not None, row.recipe
            assert (ROOT / "benchmarks" / "recipes" / f"{row.recipe}.toml").exists(), row.recipe


def test_every_job_has_a_command_on_the_page():
    page = (ROOT / "docs" / "jobs.md").read_text("utf-8")
    commands = dict(re.findall(r"`elman train ([a-z-]+) ?([a-z0-9-]*)`", page))
    assert set(TASKS) - {"dates"} <= set(commands)
    assert all(corpus in CORPORA for corpus in commands.values() if corpus)

"""What make would do, wherever the virtual environment lies."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("name", ["env", "mon env (1), 环境"])
def test_a_virtual_environment_in_any_path(name, tmp_path):
    environment = tmp_path / name

    def make(target):
        command = ["make", "-n", "-C", str(ROOT), target, f"VENV={environment}", "PYTHON=python3"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        return done.stdout

    assert f'-m venv "{environment}"' in make("setup")
    environment.mkdir()
    for stamp in (".ready", ".ready-dev"):
        (environment / stamp).touch()
    assert f'"{environment}/bin/ruff" check' in make("check")
    assert "venv" not in make("check").replace(str(environment), "")
    assert f'rm -rf "{environment}"' in make("clean")

"""Run a recipe and record its result beside it, with the machine and the time it took.

    python benchmarks/record.py benchmarks/recipes/tiny-shakespeare.toml [--run FOLDER]

Writes benchmarks/results/<recipe>.json. Where the run's folder is there, it goes on with it; the
seconds of training are then those of all parts, and no others are told.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from elman.bench import machine
from elman.training.settings import read_recipe
from elman.training.storage import to_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--run", type=Path, help="the run folder; runs/<recipe> if not given")
    options = parser.parse_args()
    name = options.recipe.stem
    run = options.run or Path("runs") / name
    task = read_recipe(options.recipe).get("task", "language-model")
    command = [sys.executable, "-m", "elman", "train", task, "--json"]
    interrupted = run.exists()
    if interrupted:
        command += ["--resume", str(run)]
    else:
        command += ["--recipe", str(options.recipe), "--run", str(run)]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        sys.exit(done.returncode)
    figures = json.loads(done.stdout.splitlines()[-1])
    figures["run"] = run.name
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "recipe": options.recipe.name,
        "command": f"elman train {task} --recipe {options.recipe.name} --json",
        "figures": figures,
        "machine": machine(),
    }
    if not interrupted:
        result["wall_seconds"] = round(time.monotonic() - started, 1)
        # Of all threads; beside other work, it says more than the time on the wall.
        result["processor_seconds"] = round(used.ru_utime + used.ru_stime, 1)
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(to_json(result, indent=2) + "\n", encoding="utf-8")
    print(to_json(result))


if __name__ == "__main__":
    main()

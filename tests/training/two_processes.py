"""What test_distribution.py runs in two processes: trainings, whose losses the first one prints."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch

import elman
from elman.tasks import restore
from elman.tasks.language_model.task import LanguageModeling
from elman.training.loop import Trainer
from elman.training.run import Run
from elman.training.start import start

SPEC = importlib.util.spec_from_file_location("own_job", Path(__file__).with_name("own_job.py"))
assert SPEC is not None and SPEC.loader is not None
OWN = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(OWN)

EXACT = {"precision": "64-true", "device": "cpu", "hidden": 6, "epochs": 2}
TEXT = {**EXACT, "steps": 7, "optimizer": "adam", "learning_rate": 0.01}
TRAININGS = {
    "a text": (LanguageModeling, TEXT),
    "two texts, clipped, decaying": (
        LanguageModeling, {**TEXT, "clip_norm": 0.01, "l1": 1e-3, "weight_decay": 1e-2, "layers": 2}
    ),
    "by RTRL": (LanguageModeling, {**TEXT, "cell": "rnn", "learning": "rtrl", "epochs": 1}),
    "accumulated": (LanguageModeling, {**TEXT, "accumulate": 3, "average": "exponential"}),
    "a job of one's own": (OWN.Tones, {**EXACT, "optimizer": "sgd", "learning_rate": 0.1}),
}  # fmt: skip


def losses(name: str, folder: Path, batch: int, processes: int) -> list[float]:
    """The loss of every update and of every validation, as this process has them."""
    kind, settings = TRAININGS[name]
    data = [] if kind is OWN.Tones else [str(folder / "book.txt")]
    if "two" in name:
        data.append(str(folder / "other.txt"))
    chosen = kind.Settings.of(settings, {"batch": batch, "devices": processes})
    trainer = start(kind, data, chosen, folder / f"{name} {processes}")
    found: list[float] = []
    together, add = trainer._together, trainer.stopping.observe

    def watched(*arguments):
        result = together(*arguments)
        found.append(result[0])
        return result

    trainer._together = watched
    trainer.stopping.observe = lambda value: found.append(value) or add(value)
    trainer.train()
    return found


def stopped_and_resumed(folder: Path) -> bool:
    """Whether a training that one process was asked to end gives the bits of an unbroken one."""
    settings = LanguageModeling.Settings.of(TEXT, {"batch": 3, "devices": 2, "dropout": 0.3})

    def begin(name: str) -> Trainer:
        return start(LanguageModeling, [str(folder / "book.txt")], settings, folder / name)

    begin("unbroken").train()
    trainer = begin("broken")
    second = trainer.processes.shard.rank == 1
    update = trainer._update

    def asked(some, interrupt):
        interrupt.asked = second and trainer.position.update == 4
        return update(some, interrupt)

    trainer._update = asked
    trainer.train()
    assert trainer.interrupted and trainer.position.update == 5
    torch.manual_seed(99)
    again = Run.open(folder / "broken")
    Trainer(restore(again), again, settings, resume=True).train()
    whole, parts = (Run.open(folder / name).load_model() for name in ("unbroken", "broken"))
    return all(torch.equal(whole[name], parts[name]) for name in whole)


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    with elman.engine("reference"):
        found: dict[str, Any] = {name: losses(name, where, 3, 2) for name in TRAININGS}
        found["resumed"] = stopped_and_resumed(where)
    print(json.dumps(found), file=(where / f"losses-{torch.distributed.get_rank()}").open("w"))

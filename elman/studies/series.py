"""The networks of a study side by side: a run folder for each, a table and a picture of all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from elman.errors import ElmanError, InputError
from elman.studies.trained import TrainedStudy
from elman.training import schema, storage
from elman.training.loop import Trainer
from elman.training.opening import restore
from elman.training.report import Report
from elman.training.run import Run
from elman.training.start import start

STUDY = "study.json"
_CHANGEABLE = {
    "updates", "seconds", "patience", "learning_rate", "clip_norm", "save_every", "tensorboard",
    "device", "cell",
}  # fmt: skip


def train_all(
    kind: type[TrainedStudy],
    settings: Any,
    seeds: Sequence[int],
    folder: Path,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train the networks of a study, one after the other, and judge and draw them.

    The folder gets a run folder for each, and at the end ``study.json``, ``study.png`` and
    ``study.svg``. Where the training of one is interrupted, it is kept, and so is what the others
    have reached: :func:`resume_all` goes on.

    Args:
        kind: of study.
        settings: what the networks have in common.
        seeds: of the networks.
        folder: made anew.
        report: what hears of the progress.

    Returns:
        what ``study.json`` holds: ``study``, ``settings`` and ``seeds``; ``rows``, the table;
        ``curves``, (update, loss, headline) of every check, for each network; ``measure`` and what
        it is to ``reach``; ``interrupted``. Where several processes train, nothing in all but the
        first.

    Raises:
        ElmanError: the folder is there already, or the data cannot be read.
        InputError: a setting cannot be used.
    """
    if folder.exists():
        raise ElmanError(
            f"{folder} is there already: delete it, or name another folder with `run`."
        )
    return _Series(kind, settings, seeds, folder, report).train({})


def resume_all(
    kind: type[TrainedStudy],
    folder: Path,
    changed: dict[str, Any],
    report: Report | None = None,
) -> dict[str, Any]:
    """Go on with what :func:`train_all` has begun in a folder; see there.

    Args:
        kind: of study.
        folder: of the study.
        changed: settings that differ from those before, such as more ``updates``.
        report: what hears of the progress.

    Raises:
        ElmanError: the folder is not that of such a study.
        InputError: a setting cannot change.
    """
    if fixed := [name for name in changed if name not in _CHANGEABLE]:
        raise InputError(
            f"`{fixed[0]}` cannot change when a study is resumed: leave it out, or begin anew."
        )
    if not folder.is_dir():
        raise ElmanError(f"no study {str(folder)!r}: expected a folder that elman study has made.")
    found = storage.read_json(folder / STUDY, _RULE)
    name = found["study"]
    if name != kind.name:
        raise ElmanError(f"{folder} is a study of {name!r}, expected {kind.name!r}: name another.")
    settings = kind.Settings.of(found["settings"], changed)
    return _Series(kind, settings, found["seeds"], folder, report).train(changed)


_RULE = schema.record(
    {
        "study": schema.text(),
        "settings": schema.record({}, others=schema.anything),
        "seeds": schema.listed(schema.whole()),
    },
    others=schema.anything,
)


class _Series:
    def __init__(
        self,
        kind: type[TrainedStudy],
        settings: Any,
        seeds: Sequence[int],
        folder: Path,
        report: Report | None,
    ):
        if not seeds or len(set(seeds)) < len(seeds):
            raise InputError(f"`seed` must be different numbers, received {list(seeds)}.")
        self.kind, self.settings, self.seeds, self.folder = kind, settings, list(seeds), folder
        self.report = report or Report()
        self.first = True  # whether this is the process that writes and shows
        self.rows: list[dict[str, Any]] = []
        self.curves: list[Any] = []
        self.studies: list[TrainedStudy] = []

    def train(self, changed: dict[str, Any]) -> dict[str, Any]:
        interrupted = False
        for label, settings in self.kind.variants(self.settings, self.seeds).items():
            began = time.process_time()
            trainer = self._trainer(self.folder / label, settings, changed)
            self.first = trainer.processes.first
            self._write(interrupted=True)
            trainer.report.say(f"{label}: {trainer.task.describe_model()} → {trainer.run.path}")
            self._train(trainer)
            interrupted = trainer.interrupted
            if interrupted:
                break
            self._judge(trainer, began)
        if self.studies and not interrupted:
            self.rows += self.kind.baselines(self.studies)
        found = self._write(interrupted)
        if self.studies and self.first:
            for ending in ("png", "svg"):
                self.kind.draw(self.studies, found, self.folder / f"study.{ending}")
        return found if self.first else {}

    def _trainer(self, path: Path, settings: Any, changed: dict[str, Any]) -> Trainer:
        if not path.exists():
            return start(self.kind, [], settings, path, self.report)
        run = Run.open(path)
        study = restore({self.kind.name: self.kind}, run, changed.get("cell"))
        study.settings = settings  # with what has changed
        trainer = Trainer(study, run, settings, resume=True, report=self.report)
        if trainer.processes.first:
            run.reconfigure(settings.to_json())
        return trainer

    def _train(self, trainer: Trainer) -> None:
        try:
            if not trainer.finished():
                trainer.train()
        except ElmanError as error:  # what is resumed is the study
            said = str(error).replace(str(trainer.run.path), str(self.folder))
            raise ElmanError(said) from error

    def _judge(self, trainer: Trainer, began: float) -> None:
        study, run, at = trainer.task, trainer.run, trainer.position
        assert isinstance(study, TrainedStudy)
        run.give_weights(study.model)
        with torch.random.fork_rng(devices=[]):
            measures = study.evaluate()
        training = {"updates": at.update, "seconds": round(at.seconds, 1)}
        training["cpu"] = round(time.process_time() - began, 1)
        self.rows.append(study.row(measures, training))
        name = f"validation_{study.headline.name}"
        lines = run.metrics("update", "loss", name)
        self.curves.append([(line["update"], line["loss"], line[name]) for line in lines])
        self.studies.append(study)

    def _write(self, interrupted: bool) -> dict[str, Any]:
        """Keep what there is; an interruption that nobody could write down reads as one."""
        found = {
            "study": self.kind.name, "settings": self.settings.to_json(), "seeds": self.seeds,
            "rows": self.rows, "interrupted": interrupted, "measure": self.kind.headline.name,
            "reach": self.studies[0].reach if self.studies else None, "curves": self.curves,
        }  # fmt: skip
        if self.first:
            storage.write_json(self.folder / STUDY, found)
        return found

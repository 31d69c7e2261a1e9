"""The one training loop that every job shares."""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from elman.cells.registry import own_line
from elman.errors import ElmanError, one_line
from elman.learning import (
    EarlyStopping,
    Schedule,
    add_l1,
    clip_norm,
    clip_value,
    detach,
    make_optimizer,
)
from elman.training.checkpoint import rule_of_checkpoint
from elman.training.curves import draw_curves
from elman.training.device import pick
from elman.training.interrupt import Interrupt
from elman.training.rehearsal import rehearse
from elman.training.report import Report
from elman.training.run import Run, refuse_existing
from elman.training.schema import Mismatch
from elman.training.settings import TrainingSettings
from elman.training.task import Task
from elman.training.watch import Watch
from elman.training.weights import give_buffers, make_room, unsaved_buffers


@dataclass
class Position:
    """Where a training stands; a checkpoint keeps it.

    Attributes:
        epoch: epochs that are done.
        window: windows of the present epoch that are done.
        update: updates that are done.
        units: tokens (or whatever the job counts) that were read.
        seconds: time spent training, over all resumptions.
        loss, counted: the present epoch's summed loss and the units it is over.
        norm: the present epoch's largest gradient norm before clipping.
        seconds_before: ``seconds`` at the start of the present epoch.
    """

    epoch: int = 0
    window: int = 0
    update: int = 0
    units: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    counted: int = 0
    norm: float = 0.0
    seconds_before: float = 0.0


class Trainer:
    """Trains a job into a run folder.

    With ``watch_gradients``, every so many updates: a look at where the gradient goes.
    Every update: gradients by truncated BPTT, L1, clipping, the optimiser at the schedule's rate.
    Every epoch: validation, a line of metrics; the best epoch's weights are kept. Every
    ``save_every`` seconds, at the end, and when interrupted: a checkpoint, from which training goes
    on bit for bit. From here to the end of :meth:`train`, nobody else can train the run.

    Args:
        task: the job, with its model.
        run: where everything is kept.
        settings: how to train.
        resume: go on from the run's checkpoint.
        report: what hears of the progress.
    """

    def __init__(
        self,
        task: Task,
        run: Run,
        settings: TrainingSettings,
        resume: bool = False,
        report: Report | None = None,
    ):
        self.task, self.run, self.settings = task, run, settings
        self.fabric = _fabric(settings)
        optimizer = make_optimizer(
            settings.optimizer,
            task.model,
            settings.learning_rate,
            settings.weight_decay,
            settings.momentum,
        )
        self.model, self.optimizer = self.fabric.setup(task.model, optimizer)
        self.state: Any = None  # the network's, before the next window
        self.schedule = Schedule(
            self.optimizer,
            settings.schedule,
            settings.learning_rate,
            settings.warmup,
            settings.epochs * task.windows(0),
            settings.division,
            settings.plateau_patience,
        )
        self.stopping = EarlyStopping(settings.patience)
        self.position = Position()
        self.report = Report() if report is None else report
        self.watch = Watch(task, run, settings.watch_every) if settings.watch_gradients else None
        self.interrupted = False
        self._saved = time.monotonic()
        self._best: dict[str, torch.Tensor] | None = None
        run.lock()
        try:
            # A new run is saved so that there is something to go on from, whatever comes.
            self._load() if resume else self._save()
        except BaseException:
            run.unlock()
            raise

    def rehearse(self) -> None:
        """Take the next update's passes and begin an evaluation; see :func:`rehearse`."""
        at = self.position
        rehearse(self.task, self.model, self.fabric, at.epoch, at.window, self.state)

    def train(self) -> None:
        """Train to the end, or until interrupted; :attr:`interrupted` tells which."""
        self.run.lock()
        try:
            with Interrupt() as interrupt, self.report:
                while not (self.finished() or self.interrupted):
                    self.interrupted = not self.epoch(interrupt)
            self._save()
            lines = self.run.metrics(*self._measures)
            title = self.task.title()
            draw_curves(lines, self.task.headline, self.run.path / "curves.png", title)
            if self.watch is not None:
                self.watch.draw()
        finally:
            self.run.unlock()

    @property
    def epochs(self) -> float:
        """How many epochs are done, with the share of the present one."""
        at = self.position
        share = at.window / max(1, self.task.windows(at.epoch))
        done = round(at.epoch + share, 2)
        return int(done) if done == int(done) else done

    # -- one epoch, one update ----------------------------------------------------------------

    def epoch(self, interrupt: Interrupt) -> bool:
        """Train to the end of the present epoch; false where that was interrupted."""
        at, self._clock = self.position, time.monotonic()
        if at.window == 0:
            self.state = None
        self.model.train()
        for window in self.task.read(at.epoch, at.window):
            if self.watch is not None:
                self.watch.look(at.update, window, self.state)
            self._update(window)
            now = time.monotonic()
            at.seconds, self._clock = at.seconds + now - self._clock, now
            if now - self._saved > self.settings.save_every:
                self._save()
                self._saved = time.monotonic()
            if interrupt.asked:
                return False
            if self._out_of_time() and at.window < self.task.windows(at.epoch):
                self._measure(at.epoch + 1, partial=True)
                return True
            self._show()
        at.epoch, at.window = at.epoch + 1, 0
        self._measure(at.epoch)
        at.loss, at.counted, at.norm, at.seconds_before = 0.0, 0, 0.0, at.seconds
        return True

    def _update(self, window: Any) -> None:
        at, settings, parameters = self.position, self.settings, list(self.model.parameters())
        rate = self.schedule.set(at.update)
        self.optimizer.zero_grad()
        error, state = self.task.loss(self.model, window, self.state)
        self.fabric.backward(error)
        # Truncated BPTT: the next window goes on from this state as from a constant.
        loss, self.state = error.item(), detach(state)
        if settings.l1:
            add_l1(self.model, settings.l1)
        if settings.clip_value is not None:
            clip_value(parameters, settings.clip_value)
        threshold = settings.clip_norm or None
        norm = float(clip_norm(parameters, threshold, error_if_nonfinite=False))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            if self._best is not None:
                self.run.save_model(self._best)
            raise self._diverged(loss, norm, rate)
        self.optimizer.step()
        count = self.task.count(window)
        at.loss, at.counted, at.norm = (
            at.loss + loss * count,
            at.counted + count,
            max(at.norm, norm),
        )
        at.window, at.update, at.units = at.window + 1, at.update + 1, at.units + count

    def _measure(self, epoch: int, partial: bool = False) -> None:
        """Validate, keep the best weights and write a line of metrics, at the end of an epoch.

        An epoch that the time limit has cut short is measured too, but it goes on where it was cut
        when the run is resumed, and counts neither for the schedule nor for early stopping.
        """
        at, task = self.position, self.task
        loss = at.loss / max(1, at.counted)
        rate = at.counted / max(1e-9, at.seconds - at.seconds_before)
        line = {"epoch": epoch, "update": at.update, "seconds": round(at.seconds, 3)}
        if partial:
            line["partial"] = True
        line |= {"loss": loss, **task.describe(loss), f"{task.unit}_per_second": round(rate)}
        line |= {"gradient_norm": at.norm, "learning_rate": self.schedule.rate(at.update - 1)}
        self.model.eval()
        held_out = task.validate()
        if held_out is not None:
            line["validation_loss"] = held_out
            line |= {f"validation_{k}": v for k, v in task.describe(held_out).items()}
        judged = loss if held_out is None else held_out
        if not partial:
            self.schedule.observe(judged)
        better = judged < self.stopping.best
        if better or not partial:
            self.stopping.observe(judged)
        if better and _finite(task.model.state_dict()):
            self._best = {k: v.detach().clone() for k, v in task.model.state_dict().items()}
        self.run.add_metrics({k: _rounded(v) for k, v in line.items()})
        if epoch % max(1, self.settings.epochs // 10) == 0 or self.finished():
            sample = self.task.sample()
            if sample is not None:
                self.run.add_sample(epoch, sample)

    # -- when to stop -------------------------------------------------------------------------

    def finished(self) -> str:
        """Why there is nothing left to train, as the end of a sentence; nothing where there is."""
        at, its = self.position, self.settings
        if at.epoch >= its.epochs:
            return f"its {at.epoch:,} `epochs` are done"
        if self.stopping.stop:
            return f"it went {its.patience} epochs without progress, all that `patience` allows"
        if self._out_of_time():
            return f"it trained for {at.seconds:,.0f} of {its.seconds:,.0f} `seconds`"
        return ""

    def _out_of_time(self) -> bool:
        limit = self.settings.seconds
        return limit is not None and self.position.seconds >= limit

    def _diverged(self, loss: float, norm: float, rate: float) -> ElmanError:
        at, clip = self.position, self.settings.clip_norm
        what = "loss" if not math.isfinite(loss) else "gradient"
        value = loss if not math.isfinite(loss) else norm
        return ElmanError(
            f"the {what} became {value} at update {at.update + 1} (epoch {at.epoch + 1}), so "
            "training stopped and the last good checkpoint is kept: lower `learning_rate` "
            f"(now {rate:g}) or `clip_norm` (now {f'{clip:g}' if clip else 'off'}) and "
            f"go on with `resume` {shlex.quote(str(self.run.path))}."
        )

    # -- keeping and going on -----------------------------------------------------------------

    def _save(self) -> None:
        weights = self.task.model.state_dict()
        if not _finite(weights):
            return  # weights that have overflowed must not replace the last good ones
        state = {
            "position": asdict(self.position),
            "model": weights,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "stopping": self.stopping.state_dict(),
            # At the start of an epoch there is none.
            "state": self.state if self.position.window else None,
            "buffers": unsaved_buffers(self.task.model),
            "random": torch.get_rng_state(),
        }
        if self.fabric.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        # The model first: should the checkpoint not follow, resuming finds the same best again.
        if self._best is not None or not self.run.has_model:
            self.run.save_model(self._best or weights)
            self._best = None
        self.run.save_checkpoint(state)

    def _load(self) -> None:
        run, model = self.run, self.task.model
        run.clear_temporary()
        run.load_model()  # what is wrong with the best weights must not show after all training
        state = run.load_checkpoint()
        for kept in ("model", "buffers"):
            make_room(model, state[kept] if isinstance(state.get(kept), dict) else {})
        try:
            rule_of_checkpoint(Position, model, self.optimizer, self.settings)(state, "")
            self.position = Position(**state["position"])
            if self.position.window > self.task.windows(self.position.epoch):
                raise Mismatch("'position.window' is beyond the text")
            model.load_state_dict(state["model"])
            give_buffers(model, state.get("buffers", {}))
            self._load_optimizer(state["optimizer"]["state"])
            self.schedule.load_state_dict(state["schedule"])
            self.stopping.load_state_dict(state["stopping"])
            self._set_draws(state)
            if self.position.window:
                self.state = _to(state["state"], self.fabric.device)
                self.rehearse()
        except (KeyError, TypeError, ValueError) as error:
            if own_line(error.__cause__ or error):  # a cell of the user's own is wrong
                raise
            raise ElmanError(
                f"{run.checkpoint} does not fit the settings of its run ({one_line(error)}): "
                "give the options of its training, or train anew."
            ) from None
        for fault in run.forget_after(self.position.epoch, *self._measures):
            self.report.say(fault)
        if self.watch is not None:
            self.watch.forget_after(self.position.update)

    def _set_draws(self, state: dict[str, Any]) -> None:
        device = self.fabric.device
        try:
            torch.set_rng_state(state["random"])
            if "random_cuda" in state and device.type == "cuda":
                torch.cuda.set_rng_state(state["random_cuda"], device)
        except RuntimeError as error:
            raise Mismatch(f"'random' cannot be used: {error}") from None

    def _load_optimizer(self, averages: dict[int, Any]) -> None:
        """Go on with the kept averages, and with the options of the settings."""
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": averages, "param_groups": groups})

    @property
    def _measures(self) -> tuple[str, ...]:
        """What every line of metrics has: the curve is drawn from it."""
        return "update", "seconds", "loss", "gradient_norm", self.task.headline

    def _show(self) -> None:
        at, settings = self.position, self.settings
        windows = self.task.windows(at.epoch)
        done = (at.epoch + at.window / max(1, windows)) / settings.epochs
        left = at.seconds * (1 - done) / max(done, 1e-9)
        if settings.seconds is not None:
            left = min(left, settings.seconds - at.seconds)
            done = max(done, at.seconds / settings.seconds)
        measures = self.task.describe(at.loss / max(1, at.counted))
        rate = at.units / max(1e-9, at.seconds)
        headline = {self.task.headline: measures[self.task.headline]}
        self.report.update(at.epoch + 1, done, headline, rate, left)


def start(
    task: type[Task],
    data: list[str],
    settings: TrainingSettings,
    path: Path,
    report: Report | None = None,
) -> Trainer:
    """A new run in the folder ``path``, ready to train; the folder is there whole or not at all.

    Raises:
        ElmanError: the folder is there already, the data cannot be used, or the disk is full.
        InputError: a setting cannot be used, or the first step of a cell fails.
    """
    refuse_existing(path)
    pick(settings.device)
    job = task.prepare(data, settings)
    settings = job.settings  # a job may fit them to its data
    run = Run.begin(path, {"task": task.name, "data": job.data, "settings": settings.to_json()})
    try:
        job.save(run)
        trainer = Trainer(job, run, settings, report=report)
        trainer.rehearse()
        run.settle()
        return trainer
    except BaseException:
        run.remove()
        raise


def _fabric(settings: TrainingSettings) -> Fabric:
    """One device and its arithmetic."""
    device = pick(settings.device)
    fabric = Fabric(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        precision=settings.precision,  # type: ignore[arg-type] # its choices are checked
    )
    fabric.launch()
    return fabric


def _finite(weights: dict[str, torch.Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in weights.values() if t.is_floating_point())


def _to(state: Any, device: torch.device) -> Any:
    if isinstance(state, torch.Tensor):
        return state.to(device)
    return tuple(_to(part, device) for part in state) if isinstance(state, tuple) else state


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value

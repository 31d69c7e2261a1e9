"""The one training loop that every job shares."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from elman.data.batches import Batches
from elman.errors import ElmanError
from elman.learning import (
    EarlyStopping,
    Schedule,
    add_l1,
    clip_norm,
    clip_value,
    make_optimizer,
)
from elman.plots.curves import draw_curves
from elman.training import checkpoint
from elman.training.averaging import Average
from elman.training.distribution import Processes, scale
from elman.training.gradients import make_gradients
from elman.training.graph import Graphs
from elman.training.interrupt import Interrupt
from elman.training.measures import Sums, add, sums_of
from elman.training.rehearsal import rehearse
from elman.training.report import Report
from elman.training.run import Run
from elman.training.settings import TrainingSettings
from elman.training.tensorboard import Board
from elman.training.watch import Watch

if TYPE_CHECKING:
    from elman.training.task import Task


class Diverged(ElmanError):
    """The loss or the gradient became infinite or no number."""


@dataclass
class Position:
    """Where a training stands; a checkpoint keeps it.

    Attributes:
        epoch: epochs that are done.
        window: batches of the present epoch that are done.
        update: updates that are done.
        units: tokens (or whatever the job counts) that were read, by all processes.
        seconds: time spent training, over all resumptions.
        norm: the present epoch's largest gradient norm before clipping.
        seconds_before: ``seconds`` at the start of the present epoch.
        sums: what this process has added up in the present epoch.
    """

    epoch: int = 0
    window: int = 0
    update: int = 0
    units: int = 0
    seconds: float = 0.0
    norm: float = 0.0
    seconds_before: float = 0.0
    sums: Sums = field(default_factory=dict)

    @property
    def moment(self) -> str:
        """A name for it; within an epoch and at its end, there are two of the same update."""
        return f"{self.epoch}-{self.window}-{self.update}"


class Trainer:
    """Trains a job into a run folder.

    With ``watch_gradients``, every so many updates: a look at where the gradient goes.
    Every update: gradients by backpropagation or another rule, of all processes together; L1,
    clipping, the optimiser at the schedule's rate, the average of the weights.
    Every epoch: validation, a line of metrics; the best epoch's weights are kept. Every
    ``save_every`` seconds, at the end, and when interrupted: a checkpoint, from which training goes
    on bit for bit. From here to the end of :meth:`train`, nobody else can train the run.

    Args:
        task: the job, with its model.
        run: where everything is kept.
        settings: how to train.
        processes: those that train.
        resume: go on from the run's checkpoint.
        report: what hears of the progress.
    """

    def __init__(
        self,
        task: Task,
        run: Run,
        settings: TrainingSettings,
        processes: Processes | None = None,
        resume: bool = False,
        report: Report | None = None,
    ):
        self.task, self.run, self.settings = task, run, settings
        self.processes = Processes(settings) if processes is None else processes
        self.fabric = self.processes.fabric
        optimizer = make_optimizer(
            settings.optimizer,
            task.model,
            settings.learning_rate,
            settings.weight_decay,
            settings.momentum,
        )
        # The model itself moves and takes its precision; what Fabric wraps it in is not needed.
        self.optimizer = self.fabric.setup(task.model, optimizer)[1]
        self.model = task.model
        self.processes.alike(self.model)
        self.graphs = Graphs(self)
        self.gradients = make_gradients(task, settings, self.fabric)
        self.carry: Any = None  # what the next batch goes on from
        self.schedule = Schedule(
            self.optimizer,
            settings.schedule,
            settings.learning_rate,
            settings.warmup,
            settings.epochs * -(-len(self.batches(0)) // settings.accumulate),
            settings.division,
            settings.plateau_patience,
        )
        self.stopping = EarlyStopping(settings.patience)
        self.average = Average(
            self.model, settings.average, settings.average_decay, settings.average_patience
        )
        self.position = Position()
        first = self.processes.first
        self.report = report if first and report is not None else Report()
        watched = first and settings.watch_gradients
        self.watch = Watch(task, run, settings.watch_every) if watched else None
        self.board = Board(run) if first and settings.tensorboard else None
        self.interrupted = False
        self.padding: float | None = None
        self._saved = time.monotonic()
        self._best: dict[str, torch.Tensor] | None = None
        if first:
            run.lock()
        try:
            # A new run is saved so that there is something to go on from, whatever comes.
            checkpoint.load(self) if resume else self.save()
        except BaseException:
            run.unlock()
            raise

    def batches(self, epoch: int) -> Batches[Any]:
        """What an epoch learns from, in this process."""
        found = self.task.batches("train", epoch, self.processes.shard)
        if not found:
            raise ElmanError(f"there is nothing to learn from for {self.task.name}: give data.")
        return found

    def rehearse(self) -> None:
        """Take the next update's passes and begin an evaluation; see :func:`rehearse`."""
        at = self.position
        rehearse(self.task, self.fabric, self.settings, at.epoch, at.window, self.carry)

    def train(self) -> None:
        """Train to the end, or until interrupted; :attr:`interrupted` tells which."""
        if self.processes.first:
            self.run.lock()
        try:
            with Interrupt() as interrupt, self.report, self.board or nullcontext():
                while not (self.finished() or self.interrupted):
                    self.interrupted = not self.epoch(interrupt)
            self.save()
            if self.processes.first:
                lines = self.run.metrics(*self.needed)
                title, path = self.task.title(), self.run.path / "curves.png"
                draw_curves(lines, self.task.headline, path, title)
            if self.watch is not None:
                self.watch.draw()
            self.processes.wait()  # or the others would look for files that are not there yet
        finally:
            self.run.unlock()

    @property
    def epochs(self) -> float:
        """How many epochs are done, with the share of the present one."""
        at = self.position
        share = at.window / max(1, len(self.batches(at.epoch)))
        done = round(at.epoch + share, 2)
        return int(done) if done == int(done) else done

    # -- one epoch, one update ----------------------------------------------------------------

    def epoch(self, interrupt: Interrupt) -> bool:
        """Train to the end of the present epoch; false where that was interrupted."""
        at, self._clock = self.position, time.monotonic()
        if at.window == 0 and not self.task.endless:
            self.carry = None
        batches = self.batches(at.epoch)
        self.padding = batches.padding
        self.model.train()
        for some in _grouped(batches.after(at.window), self.settings.accumulate):
            if self.watch is not None and some[0] is not None:
                self.watch.look(at.update, some[0], self.carry)
            asked, due = self._update(some, interrupt)
            if due:
                self.save()
                self._saved = time.monotonic()
            if asked:
                return False
            if self._out_of_time() and at.window < len(batches):
                self._read()
                self._measure(at.epoch + 1, partial=True)
                return True
            self._show(len(batches))
        self._read()
        at.epoch, at.window = at.epoch + 1, 0
        self._measure(at.epoch)
        at.sums, at.norm, at.seconds_before = {}, 0.0, at.seconds
        return True

    def _update(self, some: list[Any], interrupt: Interrupt) -> tuple[bool, bool]:
        """Learn from some batches; whether any process was asked to end, or it is time to save."""
        at, rate = self.position, self.schedule.set(self.position.update)
        replayed = self.graphs.take(some, rate)
        if replayed is not None:
            return self._go_on(replayed, interrupt)
        self._read()
        self.optimizer.zero_grad()
        parameters = list(self.model.parameters())
        # Means of different counts add up as sums.
        summed = self.processes.several or len(some) > 1
        sums: Sums = {"loss": 0.0, "count": 0}
        for batch in some:
            if batch is not None:
                found = self.gradients(batch, self.carry, summed)
                self.carry = found.carry
                add(sums, sums_of(found))
        add(at.sums, sums)
        loss, count, asked, due = self._together(parameters, sums, interrupt.asked)
        if summed:
            scale(parameters, 1 / max(1, count))
        norm = float(self.clip())
        self._check(loss, norm, rate)
        self.optimizer.step()
        self.average.update()
        at.norm = max(at.norm, norm)
        at.window, at.update = at.window + len(some), at.update + 1
        at.units += count
        return asked, due

    def clip(self) -> torch.Tensor:
        """Decay and clip the gradients as the settings say; their norm before clipping."""
        its, parameters = self.settings, list(self.model.parameters())
        if its.l1:
            add_l1(self.model, its.l1)
        if its.clip_value is not None:
            clip_value(parameters, its.clip_value)
        return clip_norm(parameters, its.clip_norm or None, error_if_nonfinite=False)

    def _check(self, loss: float, norm: float, rate: float) -> None:
        """Keep the best weights and raise an error where training has gone astray."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            if self._best is not None and self.processes.first:
                self.run.save_model(self._best)
            raise self._diverged(loss, norm, rate)

    def _go_on(self, count: int, interrupt: Interrupt) -> tuple[bool, bool]:
        """Stand behind an update of one batch that was replayed; returns as :meth:`_update`."""
        at = self.position
        *_, asked, due = self._together([], {"loss": 0.0, "count": 0}, interrupt.asked)
        at.window, at.update = at.window + 1, at.update + 1
        at.units += count
        if asked or due or self.graphs.full:
            self._read()
        return asked, due

    def _read(self) -> None:
        """Add up what replayed updates have told, as if each had told it at once."""
        at, told = self.position, self.graphs.read()
        last = at.update
        for k, (loss, norm, count, rate) in enumerate(told):
            at.update = last - len(told) + k
            self._check(loss, norm, rate)
            add(at.sums, {"loss": loss * count, "count": count})
            at.norm = max(at.norm, norm)
        at.update = last
        if told:  # the time until the device was done is time of training, too
            now = time.monotonic()
            at.seconds, self._clock = at.seconds + now - self._clock, now

    def _together(
        self, parameters: list[Any], sums: Sums, asked: bool
    ) -> tuple[float, int, bool, bool]:
        """Add up over the processes, and let all of them decide alike what comes next."""
        now, first = time.monotonic(), self.processes.first
        at = self.position
        seconds, self._clock = at.seconds + now - self._clock, now
        due = now - self._saved > self.settings.save_every
        figures = [sums["loss"], sums["count"], asked, first and due, seconds if first else 0]
        loss, count, any_asked, is_due, at.seconds = self.processes.add_up(parameters, figures)
        return loss / max(1, count), round(count), bool(any_asked), bool(is_due)

    def _measure(self, epoch: int, partial: bool = False) -> None:
        """Validate, keep the best weights and write a line of metrics, at the end of an epoch.

        An epoch that the time limit has cut short is measured too, but it goes on where it was cut
        when the run is resumed, and counts neither for the schedule nor for early stopping.
        """
        at, task, processes = self.position, self.task, self.processes
        sums = processes.together(at.sums)
        measures = task.described(sums)
        rate = sums.get("count", 0) / max(1e-9, at.seconds - at.seconds_before)
        line: dict[str, Any] = {
            "epoch": epoch,
            "update": at.update,
            "seconds": round(at.seconds, 3),
        }
        if partial:
            line["partial"] = True
        line |= {**measures, **task.observations(), f"{task.unit}_per_second": round(rate)}
        if self.padding is not None:
            line["padding"] = round(self.padding, 4)
        line |= {"gradient_norm": at.norm, "learning_rate": self.schedule.rate(at.update - 1)}
        with self.average.in_place(), self.fabric.autocast():
            held_out = task.batches("validation", None, processes.shard)
            if held_out:
                measures = task.measure(self.model, held_out, processes.together)
                line |= {f"validation_{k}": v for k, v in measures.items()}
            if task.goal is not None and task.headline.name not in measures:
                raise ElmanError(
                    f"{task.name} has a goal of its {task.headline.name}, which was not measured: "
                    "give it a validation part, or no goal."
                )
            judged = task.headline.cost(measures)
            if not partial:
                self.schedule.observe(judged)
            best = self.stopping.best
            better = judged < best
            if better or not partial:
                self.stopping.observe(judged)
                self.average.observe(better)
            # Of equals, such as two that make no mistake, the one that was trained for longer.
            if (better or judged == best) and checkpoint.finite(self.model.state_dict()):
                weights = self.model.state_dict()
                self._best = {k: v.detach().clone() for k, v in weights.items()}
            if not processes.first:
                return
            line = {k: _rounded(v) for k, v in line.items()}
            self.run.add_metrics(line)
            if self.board is not None:
                self.board.add(line)
            if epoch % max(1, self.settings.epochs // 10) == 0 or self.finished():
                self.model.eval()
                sample = task.sample()
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
        goal, headline = self.task.goal, self.task.headline
        if goal is not None and self.stopping.best <= headline.cost({headline.name: goal}):
            return f"its {headline.name.replace('_', ' ')} has reached {goal:g}, the goal"
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
        return Diverged(
            f"the {what} became {value} at update {at.update + 1} (epoch {at.epoch + 1}), so "
            "training stopped and the last good checkpoint is kept: lower `learning_rate` "
            f"(now {rate:g}) or `clip_norm` (now {f'{clip:g}' if clip else 'off'}) and "
            f"go on with `resume` {shlex.quote(str(self.run.path))}."
        )

    # -- keeping ------------------------------------------------------------------------------

    def save(self) -> None:
        """Keep a checkpoint, and the best weights if they are new; every process must call it."""
        self._best = checkpoint.save(self, self._best)

    @property
    def needed(self) -> tuple[str, ...]:
        """What every line of metrics has: the curve is drawn from it."""
        return "update", "seconds", "loss", "gradient_norm"

    def _show(self, count: int) -> None:
        at, settings = self.position, self.settings
        done = (at.epoch + at.window / max(1, count)) / settings.epochs
        left = at.seconds * (1 - done) / max(done, 1e-9)
        if settings.seconds is not None:
            left = min(left, settings.seconds - at.seconds)
            done = max(done, at.seconds / settings.seconds)
        if not (self.processes.first and at.sums):
            return
        shown = self.task.headline.of(self.task.described(at.sums))
        rate = at.units / max(1e-9, at.seconds)
        self.report.update(at.epoch + 1, done, shown, rate, left)


def _grouped(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Batches some at a time; the last ones may be fewer."""
    each = iter(batches)
    take: Callable[[], list[Any]] = lambda: list(islice(each, size))  # noqa: E731
    return iter(take, [])


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value

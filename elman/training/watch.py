"""Watching the gradient while a network learns: norms by lag, gate saturation, state norms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman import files
from elman.errors import InputError
from elman.layers import Recurrent
from elman.lens.activations import Activity, of_steps
from elman.lens.flow import GradientFlow, flow_of_last_step, plain
from elman.lens.unrolled import unrolled
from elman.training import schema, storage
from elman.training.run import Run

if TYPE_CHECKING:
    from elman.training.task import Task

LOG, PICTURE = "gradients.jsonl", "gradients"


@dataclass(frozen=True)
class Observation:
    """What a network did on one window.

    Attributes:
        name: of the network in the job's model.
        flow: where the gradient of the last step's loss goes.
        activities: gates and states, of each cell.
    """

    name: str
    flow: GradientFlow
    activities: list[Activity]


def flows(job: Task, window: Any, state: Any, threshold: float = 1e-3) -> list[Observation]:
    """Look at every recurrent network in a job's model while it reads a window.

    The model runs as in evaluation; its weights, its gradients and the random numbers to come are
    left as they are.

    Args:
        job: the job.
        window: one that its loss takes.
        state: the state before the window.
        threshold: see :func:`elman.gradient_flow`.

    Raises:
        InputError: the model has no recurrent network.
    """
    networks = [(n, m) for n, m in job.model.named_modules() if isinstance(m, Recurrent)]
    if not networks:
        raise InputError(f"the model of {job.name} has no elman.Recurrent to look at.")
    training, looks = job.model.training, []
    job.model.eval()
    try:
        for name, network in networks:
            with unrolled(network) as run:
                loss = job.loss(job.model, window, state).value
                flow = flow_of_last_step(run, loss, threshold)
            looks.append(Observation(name, flow, [of_steps(steps) for steps in run.cells]))
    finally:
        job.model.train(training)
    return looks


def saturation(activity: Activity) -> dict[str, dict[str, float]]:
    """Of each gate: its mean, and the shares of its values below 0.1 and above 0.9."""
    return {
        name: {
            "mean": float(gate.mean()),
            "below": float((gate < 0.1).float().mean()),
            "above": float((gate > 0.9).float().mean()),
        }
        for name, gate in activity.gates.items()
    }


class Watch:
    """The log of a run's gradient flow: ``gradients.jsonl``, drawn as ``gradients.png`` and .svg.

    A line for each look: ``update``, and for each cell ``network``, ``layer``, ``direction``,
    ``norms`` (‖∂L_t/∂s_k‖ by lag, by state, ``"all"`` for all states as one vector), ``verdict``,
    ``lag``, ``gates`` (see :func:`saturation`) and ``state_norms`` (‖s‖, the mean over steps and
    sequences).

    Args:
        job: the job that is trained.
        run: its folder.
        every: updates between two looks.
    """

    def __init__(self, job: Task, run: Run, every: int):
        self.job, self.run, self.every = job, run, every

    def look(self, update: int, window: Any, state: Any) -> None:
        """Look at the window that the next update learns from, if it is time to."""
        if update % self.every:
            return
        cells = []
        for look in flows(self.job, window, state):
            for flow, activity in zip(look.flow.cells, look.activities, strict=True):
                norms = {name: plain(values) for name, values in flow.by_state.items()}
                cells.append(
                    {
                        "network": look.name,
                        "layer": flow.layer,
                        "direction": flow.direction,
                        "norms": {"all": plain(flow.norms), **norms},
                        "verdict": flow.verdict.kind,
                        "lag": flow.verdict.lag,
                        "gates": {
                            name: {key: plain(value) for key, value in shares.items()}
                            for name, shares in saturation(activity).items()
                        },
                        "state_norms": {
                            name: plain(float(values.norm(dim=-1).mean()))
                            for name, values in activity.states.items()
                        },
                    }
                )
        self.run.append(LOG, storage.to_json({"update": update, "cells": cells}) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """All looks so far."""
        return read_log(self.run.path / LOG)

    def forget_after(self, update: int) -> None:
        """Drop the looks at updates from ``update`` on: they will come again."""
        kept = [line for line in self.lines() if line["update"] < update]
        text = "".join(storage.to_json(line) + "\n" for line in kept)
        files.write_bytes(self.run.path / LOG, text.encode())

    def draw(self) -> None:
        """Draw all looks into the run's folder."""
        from elman.plots.training_gradients import draw_watch

        lines = self.lines()
        if lines:
            pictures = [self.run.path / f"{PICTURE}.{format}" for format in ("png", "svg")]
            draw_watch(lines, pictures, self.job.title())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that are whole: the process, or the disk, may have ended within one."""
    return storage.read_lines(path, _LINE)[0]


_MAYBE = schema.optional(schema.number())
_CELL = schema.record(
    {
        "network": schema.text(), "layer": schema.whole(), "direction": schema.text(),
        "norms": schema.record(
            {"all": schema.listed(_MAYBE, least=1)}, others=schema.listed(_MAYBE)
        ),
        "verdict": schema.text(), "lag": schema.optional(schema.whole()),
        "gates": schema.record(
            {}, others=schema.record({"mean": _MAYBE, "below": _MAYBE, "above": _MAYBE})
        ),
        "state_norms": schema.record({}, others=_MAYBE),
    }
)  # fmt: skip
_LINE = schema.record({"update": schema.whole(), "cells": schema.listed(_CELL, least=1)})

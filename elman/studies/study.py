"""What a study is, and the training that most of them share."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from elman import cells
from elman.cells import registry
from elman.cells.contract import Cell
from elman.errors import InputError
from elman.layers import Recurrent
from elman.learning import Schedule, clip_norm, make_optimizer
from elman.studies import pictures
from elman.training.interrupt import Interrupt
from elman.training.memory import if_it_fits
from elman.training.report import Report
from elman.training.settings import Settings, option


@dataclass
class Outcome:
    """What a study has found.

    Attributes:
        rows: one for each seed, or whatever the study varies; the table.
        details: what the plot shows beyond the rows; goes into the JSON file.
    """

    rows: list[dict[str, Any]]
    details: dict[str, Any]


class Study:
    """One thing that recurrences can do: it is run, printed as a table, and drawn.

    Attributes:
        name: what the command line calls it.
        title: one line.
        source: where it comes from.
        Settings: its settings.
        interrupted: whether somebody ended it early.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    interrupted = False

    def __init__(self, settings: Any):
        self.settings = settings

    def run(self, report: Report) -> Outcome:
        """Do it."""
        raise NotImplementedError

    def draw(self, outcome: Outcome, path: Path) -> None:
        """Draw what was found into the file ``path``."""
        raise NotImplementedError


@dataclass
class LearningSettings(Settings):
    """The settings of a study that trains a network."""

    cell: str = option("lstm", "A name that elman cells lists, or path/to/file.py:ClassName.")
    hidden: int = option(32, "Units.", least=1, below=2**31)
    length: int = option(100, "T, the length of a sequence in steps.", least=1, below=2**31)
    updates: int = option(5000, "At most, for each seed.", least=1)
    batch: int = option(32, "Sequences of an update.", least=1, below=2**31)
    learning_rate: float = option(
        5e-3, "Adam's step size; it falls to 0 as a cosine.", above=0, below=1e31
    )
    clip_norm: float = option(1.0, "Clip the gradient's norm to this.", above=0)
    memory: int = option(0, "Start gates as for memories of so many steps; 0: plainly.", least=0)
    forget_bias: float | None = option(
        None, "What the bias of the gate that keeps starts at.", above=-1e31, below=1e31
    )
    every: int = option(100, "Updates between two checks.", least=1)
    seeds: int = option(5, "How many networks.", least=1)
    seed: int = option(0, "The first one's seed.", least=0, below=2**31)

    @classmethod
    def with_defaults(cls, **defaults: Any) -> type[LearningSettings]:
        """The same settings with other defaults."""
        kinds = cls.__annotations__ | LearningSettings.__annotations__
        changed: dict[str, Any] = {"__annotations__": {name: kinds[name] for name in defaults}}
        for declared in fields(cls):
            if declared.name in defaults:
                rules = dict(declared.metadata)
                changed[declared.name] = option(defaults[declared.name], rules.pop("help"), **rules)
        changed["__module__"] = cls.__module__
        return dataclass(type(cls.__name__, (cls,), changed))


@dataclass(frozen=True)
class Batch:
    """Sequences and what is wanted of them.

    Attributes:
        x: (T, B, M).
        target: what the task's loss reads.
        lengths: of each sequence (B); None where all are T.
    """

    x: Tensor
    target: Tensor
    lengths: Tensor | None = None


class Reader(nn.Module):
    """A recurrent network with an affine read-out of every step: y_t = V h_t + b.

    Args:
        cell: of the recurrence.
        outputs: O, the width of y.
        layers: of the recurrence.
    """

    def __init__(self, cell: Cell, outputs: int, layers: int = 1, skip: str | None = None):
        super().__init__()
        self.recurrent = Recurrent(cell, layers, skip=skip)
        self.readout = nn.Linear(self.recurrent.output_size, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """y (T, B, O) of every step."""
        return self.readout(self._states(batch))

    def last(self, batch: Batch) -> Tensor:
        """y (B, O) of each sequence's last step."""
        h = self._states(batch)
        if batch.lengths is None:
            return self.readout(h[-1])
        ends = (batch.lengths - 1).view(1, -1, 1).expand(1, -1, h.shape[-1])
        return self.readout(h.gather(0, ends)[0])

    def _states(self, batch: Batch) -> Tensor:
        """h (T, B, H) of every step, in the weights' type."""
        return self.recurrent(batch.x.to(self.readout.weight), lengths=batch.lengths)[0]


def make_cell(settings: LearningSettings, inputs: int) -> Cell:
    """A new cell, started so that it remembers for ``settings.memory`` steps where it can.

    With T the memory, gates start at b_f ~ log U(1, T − 1) and b_i = −b_f, a GRU's at b_z as b_f
    (Tallec & Ollivier, 2018), and the eigenvalues of a linear recurrent unit in the ring
    1 − 1/T ≤ |λ| ≤ 1. ``settings.forget_bias`` sets b_f, or a GRU's b_z, to one number. Cells
    without such gates have nothing to set.
    """
    longest = settings.memory
    ring = {"radius": (1 - 1 / longest, 1.0)} if longest and settings.cell == "lru" else {}
    cell = registry.make(settings.cell, inputs, settings.hidden, **ring)
    if longest:
        _chrono(cell, longest)
    keeps = _keeping(cell)
    if keeps and settings.forget_bias is not None:
        cell.fill_bias(keeps, settings.forget_bias)
    return cell


def _keeping(cell: Cell) -> str:
    """The block of the gate that multiplies the memory: an LSTM's f, a GRU's z, or nothing."""
    if isinstance(cell, cells.GRU | cells.GRUResetBefore):
        return "z"
    blocks = {block for name, _ in cell.named_parameters() for block in cell.blocks_of(name)}
    return "f" if "c" in cell.state and "f" in blocks else ""


def _chrono(cell: Cell, longest: int) -> None:
    drawn = torch.empty(cell.hidden_size).uniform_(1, max(2, longest - 1)).log()
    starts = {_keeping(cell): drawn, "i": -drawn}
    for name, parameter in cell.named_parameters():
        blocks = cell.blocks_of(name)
        for k, block in enumerate(blocks):
            if name.startswith("bias_") and block in starts:
                second = name.startswith("bias_hh")  # torch.nn's: the sum of both counts
                start = torch.zeros_like(drawn) if second else starts[block]
                parameter.data.view(len(blocks), -1)[k] = start


class Learning(Study):
    """A study for which a network is trained, once for each seed.

    A subclass gives :meth:`batch`, :meth:`loss`, :meth:`figure` and what the figure must reach.
    Training ends as soon as the figure, on sequences held out for these checks, is at the goal;
    what is reported is the figure on yet others. The best weights of all checks are kept.

    Attributes:
        inputs, outputs: M and O.
        measure: what the figure is.
        goal: at what the training ends: some way past ``reach``, because checks scatter.
        reach: what the figure must reach.
        higher: whether a higher figure is better.
        shortest: the least length T.
    """

    inputs: ClassVar[int]
    outputs: ClassVar[int]
    measure: ClassVar[str]
    goal: ClassVar[float]
    reach: float
    higher: ClassVar[bool] = False
    shortest: ClassVar[int] = 1
    Settings = LearningSettings
    settings: LearningSettings

    def __init__(self, settings: LearningSettings):
        super().__init__(settings)
        if settings.length < self.shortest:
            raise InputError(
                f"{self.name} needs sequences of {self.shortest} steps at least, received "
                f"`length` {settings.length}."
            )
        self._interrupt = Interrupt()

    def batch(self, draw: torch.Generator, count: int, length: int) -> Batch:
        """``count`` sequences.

        Args:
            draw: where the random numbers come from.
            count: B.
            length: T.
        """
        raise NotImplementedError

    def loss(self, network: Reader, batch: Batch) -> Tensor:
        """What training makes small."""
        raise NotImplementedError

    def figure(self, network: Reader, draw: torch.Generator) -> float:
        """How well the network does on sequences that it has not seen."""
        raise NotImplementedError

    def check(self, network: Reader, draw: torch.Generator) -> float:
        """The figure as it is watched while training, where that is another."""
        return self.figure(network, draw)

    def make(self) -> Any:
        """A new network, such as a :class:`Reader`."""
        return Reader(make_cell(self.settings, self.inputs), self.outputs)

    def reached(self, figure: float) -> bool:
        """Whether a figure is good enough."""
        return not self._better(self.reach, figure)

    def run(self, report: Report) -> Outcome:
        """Train a network for each seed; Ctrl-C ends at the present one, which is still judged."""
        curves, rows = [], []
        with Interrupt() as self._interrupt:
            for k in range(self.settings.seeds):
                row, curve = self.learn(self.settings.seed + k, k, report)
                rows.append(row)
                curves.append(curve)
                if self._interrupt.asked:
                    break
        self.interrupted = self._interrupt.asked
        return Outcome(rows, {"measure": self.measure, "reach": self.reach, "curves": curves})

    def draw(self, outcome: Outcome, path: Path) -> None:
        """The figure by update, a line for each seed."""
        title = f"{self.name}: {self.settings.cell}, {self.widths()}, T = {self.settings.length}"
        pictures.draw_learning(outcome.rows, outcome.details, title, path)

    def widths(self) -> str:
        """How large the network is, for the plot's title."""
        return f"{self.settings.hidden} units"

    def learn(self, seed: int, k: int, report: Report) -> tuple[dict[str, Any], list[Any]]:
        """Train one network; a row of the table, and (update, loss, figure) of every check."""
        its = self.settings
        torch.manual_seed(seed)
        network = if_it_fits(self.make)
        drawn = torch.Generator().manual_seed(seed)
        optimizer = make_optimizer("adam", network, its.learning_rate)
        schedule = Schedule(optimizer, "cosine", its.learning_rate, total=its.updates)
        curve: list[Any] = []
        figures: list[float] = []
        losses: list[float] = []
        kept, seconds = _weights(network), 0.0
        began, spent = time.perf_counter(), time.process_time()
        for update in range(1, its.updates + 1):
            schedule.set(update - 1)
            optimizer.zero_grad()
            loss = self.loss(network, self.batch(drawn, its.batch, its.length))
            loss.backward()
            clip_norm(network.parameters(), its.clip_norm, error_if_nonfinite=False)
            optimizer.step()
            losses.append(float(loss.detach()))
            ending = update == its.updates or self._interrupt.asked
            if update % its.every and not ending:
                continue
            figure = self._judge(self.check, network, 1)
            seconds = time.perf_counter() - began
            curve.append((update, statistics.fmean(losses), figure))
            losses.clear()
            if not any(self._better(before, figure) for before in figures):
                kept = _weights(network)
            figures.append(figure)
            rate = update / seconds
            done = (k + update / its.updates) / its.seeds
            shown = {"loss": curve[-1][1], self.measure: figure}
            report.update(k + 1, done, shown, rate, (its.updates - update) / rate)
            if ending or not self._better(self.goal, figure):
                break
        network.load_state_dict(kept)
        self.network = network
        final = self._judge(self.figure, network, 2)
        cpu = time.process_time() - spent
        row = {"seed": seed, "updates": update, "seconds": round(seconds, 1), "cpu": round(cpu, 1)}
        row["figure"] = final
        row["reached"] = self.reached(final)
        return row, curve

    def _better(self, figure: float, than: float) -> bool:
        return figure > than if self.higher else figure < than

    @torch.no_grad()
    def _judge(self, how: Callable[..., float], network: Reader, which: int) -> float:
        # The checks and the final test have sequences of their own, the same for every seed.
        figure = how(network, torch.Generator().manual_seed(2**31 + which))
        if math.isnan(figure):
            raise InputError(
                "the training diverged (the figure is not a number): lower `learning_rate` "
                "or `clip_norm`."
            )
        return figure


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}

"""Whole jobs beside what a user of ``torch.nn`` would write: the training loop, and writing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from elman.bench.cells import BUILT_IN
from elman.bench.measurement import Shape
from elman.errors import ElmanError
from elman.learning import detach
from elman.tasks.language_model.task import LanguageModeling, LanguageModelSettings
from elman.training.interrupt import Interrupt
from elman.training.start import start

PROMPT = "time traveller"
LENGTH = 100  # characters in one call of ``generate``


class Job(NamedTuple):
    """Two calls that do the same job.

    Attributes:
        elman, peer: the calls.
        tokens: how many tokens a call reads or writes.
        vocabulary: how many tokens there are to tell apart.
    """

    elman: Callable[[], Any]
    peer: Callable[[], Any]
    tokens: int
    vocabulary: int


class TorchLanguageModel(nn.Module):
    """A character model as a good user of ``torch.nn`` writes it, with the weights of elman's."""

    def __init__(self, cell: str, task: LanguageModeling):
        super().__init__()
        s, self.size = task.settings, len(task.vocabulary)
        self.recurrent = BUILT_IN[cell](self.size, s.hidden, s.layers)
        self.output = nn.Linear(s.hidden, self.size)
        self.load_state_dict(task.model.state_dict())

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (T, B) and a state to logits (T, B, V) and the state after them."""
        y, state = self.recurrent(one_hot(tokens, self.size).float(), state)
        return self.output(y), state


def settings(cell: str, shape: Shape) -> LanguageModelSettings:
    """Those of the textbook's run, benchmarks/recipes/time-machine.toml, in other sizes."""
    return LanguageModelSettings(
        tokens="character", normalize="letters", limit=10_000, validation=0.0,
        cell=cell, hidden=shape.hidden, layers=shape.layers, batch=shape.batch, steps=shape.steps,
        epochs=500, optimizer="sgd", learning_rate=2.0, clip_norm=1.0,
        prompts=["time traveller", "traveller"], sample_length=50, sample_temperature=0.0,
    )  # fmt: skip


@contextmanager
def main_job(cell: str, shape: Shape) -> Iterator[Job]:
    """An epoch of the training loop: elman's own, run folder and all, beside a plain loop.

    elman cuts the text elsewhere in every epoch, the plain loop always as in the first; the tokens
    of an epoch differ by less than one a row.

    Raises:
        ElmanError: the two do not start with the same loss.
    """
    chosen = settings(cell, shape)
    with tempfile.TemporaryDirectory(prefix="elman-") as folder:
        trainer = start(LanguageModeling, ["time-machine"], chosen, Path(folder) / "run")
        task = trainer.task
        assert isinstance(task, LanguageModeling)
        model = TorchLanguageModel(cell, task)
        optimizer = torch.optim.SGD(model.parameters(), lr=chosen.learning_rate)

        def plain() -> float:
            total, count, state = torch.zeros(()), 0, None
            for inputs, targets in task.batches("train", 0):
                logits, state = model(inputs, state)
                loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), chosen.clip_norm)
                optimizer.step()
                state = detach(state)
                total, count = total + loss.detach() * targets.numel(), count + targets.numel()
            return float(total / count)

        # Never entered: Ctrl-C ends the measurement, not the epoch.
        interrupt = Interrupt()
        trainer.epoch(interrupt)
        ours, theirs = trainer.run.metrics()[-1]["loss"], plain()
        if not abs(ours - theirs) <= 1e-3 * theirs:
            raise ElmanError(
                f"the two training loops do not learn the same (losses of the first epoch: "
                f"{ours:.4f} and {theirs:.4f}): this is a fault."
            )
        tokens = sum(window.targets.numel() for window in task.batches("train", 0))
        yield Job(lambda: trainer.epoch(interrupt), plain, tokens, len(task.vocabulary))


@contextmanager
def generation(cell: str, shape: Shape) -> Iterator[Job]:
    """Writing, character by character, each drawn from what the model expects next.

    Raises:
        ElmanError: the two do not write the same, always taking the likeliest character.
    """
    task = LanguageModeling.create(["time-machine"], settings(cell, shape._replace(batch=1)))
    model = TorchLanguageModel(cell, task)
    task.model.eval()
    ids = torch.tensor(task.vocabulary.encode_text(PROMPT), dtype=torch.long).unsqueeze(1)

    @torch.inference_mode()
    def plain(temperature: float = 1.0) -> str:
        written: list[int] = []
        logits, state = model(ids)
        for k in range(LENGTH):
            if k:
                logits, state = model(torch.tensor([written[-1:]]), state)
            scores = logits[-1, 0]
            scores[task.vocabulary.unknown_id] = -torch.inf
            if temperature:
                written.append(int(torch.multinomial((scores / temperature).softmax(-1), 1)))
            else:
                written.append(int(scores.argmax()))
        return task.vocabulary.decode(written)

    def ours(temperature: float = 1.0) -> str:
        return "".join(task.generate(PROMPT, LENGTH, temperature=temperature))

    if ours(0.0) != plain(0.0):
        raise ElmanError("the two sides do not write the same characters: this is a fault.")
    yield Job(ours, plain, LENGTH, len(task.vocabulary))

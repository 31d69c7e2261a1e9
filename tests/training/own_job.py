"""A job of one's own: which of two tones a noisy sequence is. All else comes with it."""

from dataclasses import dataclass

import torch
from torch import nn

from elman.data.batches import batched
from elman.data.shards import Shard
from elman.training.network import NetworkSettings, make_recurrent
from elman.training.settings import DataSettings, TrainingSettings, option
from elman.training.task import Loss, Measure, Task, Verb


@dataclass
class ToneSettings(TrainingSettings, NetworkSettings, DataSettings):
    count: int = option(60, "Sequences to learn from; as many are held out.", least=2)


class Classifier(nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.recurrent = make_recurrent(settings, 1)
        self.output = nn.Linear(self.recurrent.output_size, 2)

    def forward(self, x):
        return self.output(self.recurrent(x.to(self.output.weight))[0].mean(0))


def tell(task, inputs, settings):
    for numbers in inputs:
        x = torch.tensor([[[float(number)]] for number in numbers.split()])
        yield {"tone": ("low", "high")[int(task.model(x).argmax())]}


class Tones(Task):
    """Tell a low tone from a high one."""

    name, unit, headline = "tones", "sequences", Measure("accuracy", higher=True)
    Settings, example = ToneSettings, "--hidden 8"
    verbs = (Verb("predict", "Name tones.", "RUN '0 1 0'", tell, "Sequences", each=True),)

    def build(self):
        return Classifier(self.settings)

    def batches(self, part, epoch=None, shard=Shard()):  # noqa: B008
        draw = torch.Generator().manual_seed(len(part))
        labels = torch.randint(2, (self.settings.count,), generator=draw)
        x = torch.sin(torch.arange(20)[:, None, None] * torch.tensor([[0.3], [0.9]])[labels])
        x += 0.3 * torch.randn(x.shape, generator=draw)
        items = range(0 if part == "test" else self.settings.count)
        return batched(items, self.settings.batch, lambda k: (x[:, k], labels[k]), epoch, shard)

    def loss(self, model, batch, carry):
        logits = model(batch[0])
        right = {"right": (logits.argmax(-1) == batch[1]).sum()}
        return Loss(nn.functional.cross_entropy(logits, batch[1]), len(batch[1]), sums=right)

    def measures(self, sums):
        return {"accuracy": sums["right"] / sums["count"]}

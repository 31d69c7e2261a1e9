"""A cell from a paper that elman does not have: written, compiled, trained, streamed, looked into.

    python examples/your_own_cell.py

It learns the first pages of The Time Machine character by character, and then writes. The cell is
the whole of what is new: the network, its kernels and its stream are what every cell gets.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn, sigmoid, tanh
from torch.nn.functional import cross_entropy, one_hot

import elman
from elman import Affine, Cell, Linear, Recurrent, learning
from elman.data import corpora


class STAR(Cell):
    """Stackable recurrent cell (Turkoglu et al., 2021).

    k = σ(W x + U h + b)    z = tanh(V x + b_z)    h' = tanh((1 − k) ⊙ h + k ⊙ z)
    """

    gate = Affine("k")
    content = Linear(of="x", bias=True)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """One step."""
        k = sigmoid(self.gate(x, h).k)
        z = tanh(self.content(x))
        return tanh((1 - k) * h + k * z)


class Writer(nn.Module):
    """Characters in, scores of the next character out."""

    def __init__(self, characters: int, hidden: int = 128, layers: int = 2):
        super().__init__()
        self.characters = characters
        self.network = Recurrent(STAR(characters, hidden), layers)
        self.head = nn.Linear(hidden, characters)

    def forward(self, codes: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes (T, B) to scores (T, B, characters), and the state to go on from."""
        y, state = self.network(one_hot(codes, self.characters).float(), state)
        return self.head(y), state


def train(model: Writer, codes: Tensor, epochs: int, batch: int = 32, steps: int = 35) -> float:
    """Truncated BPTT over the text in ``batch`` rows; the perplexity of the last epoch."""
    rows = codes[: len(codes) // batch * batch].view(batch, -1).t()
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    for epoch in range(1, epochs + 1):
        state, total, count, begin = None, 0.0, 0, time.perf_counter()
        for k in range(0, len(rows) - 1, steps):
            x, target = rows[k : k + steps], rows[k + 1 : k + 1 + steps]
            scores, state = model(x[: len(target)], state)
            loss = cross_entropy(scores.flatten(0, 1), target.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            state = state.detach()
            total, count = total + loss.item() * target.numel(), count + target.numel()
        perplexity = float(torch.tensor(total / count).exp())
        if epoch % 10 == 0:
            rate = count / (time.perf_counter() - begin)
            print(f"epoch {epoch:3}: perplexity {perplexity:5.2f}, {rate:,.0f} characters a second")
    return perplexity


@torch.no_grad()
def write(model: Writer, prompt: Tensor, count: int, temperature: float = 0.5) -> list[int]:
    """A continuation that is drawn a character at a time: what a stream does."""
    state, written = model.network.initial_state(), []
    for code in prompt:
        y, state = model.network.step(one_hot(code, model.characters).float(), state)
    for _ in range(count):
        code = torch.multinomial((model.head(y) / temperature).softmax(-1), 1).squeeze(0)
        written.append(int(code))
        y, state = model.network.step(one_hot(code, model.characters).float(), state)
    return written


def stream_error(model: Writer, codes: Tensor) -> float:
    """How far the stream's output is from that of the loop in Python that defines the cell."""
    x, state = one_hot(codes, model.characters).float(), model.network.initial_state()
    with torch.no_grad(), elman.engine("reference"):
        expected, _ = model.network(x)
    with torch.no_grad():
        for row in x:
            y, state = model.network.step(row, state)
    return float((y - expected[-1]).abs().max())


# -- the learning rules and the lens -------------------------------------------------------------


def forward_in_time(codes: Tensor, characters: int) -> float:
    """RTRL on a small network, which never looks back, against BPTT: how far their gradients are.

    RTRL carries the influence of every weight on every unit, so the network has few of both.
    """
    network = Recurrent(STAR(characters, 6)).double()
    x = one_hot(codes[:-1], characters).double().unsqueeze(1)
    gradients = []
    for rule in (learning.RTRL, learning.BPTT):
        network.zero_grad()
        rule(network, lambda y, target: (y - target).square().mean()).gradients(x, x[..., :6])
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    return float((gradients[0] - gradients[1]).abs().max())


def flow(model: Writer, codes: Tensor) -> str:
    """How much of the gradient at the last character reaches those before it, layer by layer."""
    x = one_hot(codes, model.characters).float().unsqueeze(1)
    return str(elman.gradient_flow(model.network, x, jacobians=False))


# -- all of it -----------------------------------------------------------------------------------


def main(epochs: int = 80, characters: int = 10_000) -> float:
    """All of it; returns the perplexity reached."""
    torch.manual_seed(0)
    book = corpora.find("time-machine").paths()[0]
    text = " ".join(book.read_text(encoding="utf-8").lower().split())
    text = text[:characters]
    alphabet = sorted(set(text))
    codes = torch.tensor([alphabet.index(c) for c in text])
    model = Writer(len(alphabet))
    print(f"{model.network}, {sum(p.numel() for p in model.parameters()):,} parameters")
    perplexity = train(model, codes, epochs)

    prompt = "the time traveller"
    written = write(model, torch.tensor([alphabet.index(c) for c in prompt]), 80)
    print(prompt + "".join(alphabet[k] for k in written))
    print(f"the stream differs from the reference by {stream_error(model, codes[:50]):.1e}")

    print(f"RTRL differs from BPTT by {forward_in_time(codes[:40], len(alphabet)):.1e}")
    print(flow(model, codes[:100]))
    return perplexity


if __name__ == "__main__":
    main()

"""The five shapes of input and output: five small nets, each of which learns within seconds.

    python examples/shapes.py               learns, and prints what
    python examples/shapes.py shapes.png    draws the nets, too, unrolled over their steps

All of it is about numbers: digits, noisy pictures of digits, and words. An input x is T steps of B
examples; f is the recurrent net with H units, g turns a state into scores of what may come out.
Each net is measured on examples drawn anew, the translation on numbers that were held out.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils.rnn import pad_sequence

import elman
from elman import Recurrent, cells
from elman.plots.unrolled import Unrolled, draw_unrolled

# -- numbers, as pictures and in words -----------------------------------------------------------

DIGITS = """
███   █ ███ ███ █ █ ███ ███ ███ ███ ███
█ █   █   █   █ █ █ █   █     █ █ █ █ █
█ █   █ ███ ███ ███ ███ ███   █ ███ ███
█ █   █ █     █   █   █ █ █   █ █ █   █
███   █ ███ ███   █ ███ ███   █ ███ ███"""
SIGNS = torch.tensor([[sign == "█" for sign in row] for row in DIGITS.split("\n")[1:]])
PIXELS = SIGNS.float().unfold(1, 3, 4).transpose(0, 1).flatten(1)  # (10, 15)

WORDS = """
one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred"""
WÖRTER = """
ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn
sechzehn siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig
neunzig hundert"""
NUMBERS = [*range(1, 20), *range(20, 101, 10)]
ENGLISH, GERMAN = (dict(zip(NUMBERS, w.split(), strict=True)) for w in (WORDS, WÖRTER))

NAMES = ["zero", *WORDS.split()[:9]]

T = 6  # steps, or where examples differ in length, the most of them
EOS = "EOS"  # what a decoder writes at the end of a sequence; the first of its tokens, code 0


def pictures(digits: Tensor) -> Tensor:
    """Noisy pictures of the digits: 5 × 3 pixels, as 15 numbers."""
    return PIXELS[digits] + 0.15 * torch.randn(*digits.shape, 15)


def english(number: int) -> list[str]:
    """Words such as two hundred forty two."""
    if number > 100:
        return [ENGLISH[number // 100], "hundred", *english(number % 100)]
    if number in ENGLISH:
        return [ENGLISH[number]]
    return [ENGLISH[number - number % 10], ENGLISH[number % 10]] if number else []


def german(number: int) -> list[str]:
    """Words such as zwei hundert zwei und vierzig: the units come before the tens."""
    if number > 100:
        return [GERMAN[number // 100], "hundert", *german(number % 100)]
    if number in GERMAN:
        return [GERMAN[number] if number > 1 else "eins"]
    return [GERMAN[number % 10], "und", GERMAN[number - number % 10]] if number else []


def coded(texts: list[list[str]], tokens: tuple[str, ...]) -> Tensor:
    """The codes of the texts' tokens, a column for each text, with 0 after its end."""
    return pad_sequence([torch.tensor([tokens.index(t) for t in text]) for text in texts])


# -- the five shapes -----------------------------------------------------------------------------


class Net(nn.Module):
    """What the five have in common: ``forward`` gives scores (T, B, tokens) of the outputs."""

    title: str
    about: str
    tokens: tuple[str, ...]  # what may come out

    def predict(self, x: Tensor) -> Tensor:
        """The codes of the outputs with the highest scores, (T, B)."""
        return self(x).argmax(-1)

    def shown(self, x: Tensor, k: int) -> list[Tensor] | list[str]:
        """Example k of the input, step by step: pictures, where a net doesn't say otherwise."""
        return list(x[:, k].view(-1, 5, 3))

    def unrolled(self, x: Tensor, codes: Tensor, k: int) -> Unrolled:
        """Example k with the outputs of these codes (T, B), up to the first EOS."""
        said = [self.tokens[code] for code in codes[:, k]]
        said = said[: said.index(EOS) + 1] if EOS in said else said
        return Unrolled(self.title, self.about, self.shown(x, k), said, isinstance(self, Writer))


class OneToOne(Net):
    """One input, one output: a net without a past is a perceptron."""

    title, about = "one to one", "a picture → its digit"
    tokens = tuple("0123456789")

    def __init__(self):
        super().__init__()
        self.f, self.g = Recurrent(cells.Perceptron(15, 32)), nn.Linear(32, 10)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Pictures (1, B, 15) and their digits (1, B)."""
        digits = torch.randint(10, (1, count))
        return pictures(digits), digits

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the ten digits."""
        h, _ = self.f(x)  # (1, B, H)
        return self.g(h)


class ManyToOne(Net):
    """Many inputs, one output: the last state has heard of all of them."""

    title, about = "many to one", "digits → the largest"
    tokens = tuple("0123456789")

    def __init__(self):
        super().__init__()
        self.f, self.g = elman.GRU(10, 32), nn.Linear(32, 10)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """One to six digits of 1 … 9, then 0 where there is none, (6, B); the largest, (1, B)."""
        digits, lengths = torch.randint(1, 10, (6, count)), torch.randint(1, 7, (count,))
        x = digits.masked_fill(torch.arange(6)[:, None] >= lengths, 0)
        return x, x.amax(0, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """Scores by the state at each example's own end."""
        _, last = self.f(one_hot(x, 10).float(), lengths=(x > 0).sum(0))  # (1, B, H)
        return self.g(last)

    def shown(self, x: Tensor, k: int) -> list[str]:
        """The digits."""
        return [str(int(digit)) for digit in x[:, k] if digit > 0]


class Aligned(Net):
    """Many inputs, an output for each: every state has heard of the inputs so far."""

    title, about = "many to many, aligned", "a film of a counter → its moves"
    tokens = ("−", "=", "+")

    def __init__(self):
        super().__init__()
        self.f, self.g = elman.GRU(15, 64), nn.Linear(64, 3)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Six frames of a counter, (6, B, 15), and its moves from frame to frame, (6, B)."""
        moves = torch.randint(-1, 2, (6, count))
        moves[0] = 0
        digits = (torch.randint(10, (count,)) + moves.cumsum(0)) % 10
        return pictures(digits), moves + 1

    def forward(self, x: Tensor) -> Tensor:
        """Scores by every state."""
        h, _ = self.f(x)  # (6, B, H)
        return self.g(h)


class Writer(Net, ABC):
    """A decoder f: it starts from a state, reads what it wrote last, and ends with EOS."""

    def __init__(self):
        super().__init__()
        self.f, self.g = elman.GRU(len(self.tokens), 64), nn.Linear(64, len(self.tokens))

    @abstractmethod
    def start(self, x: Tensor) -> Tensor:
        """The state (1, B, H) that the decoder starts from: what it is to know of the input."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Scores where all that was written before is right, all at once: so it learns."""
        before = torch.cat([torch.zeros_like(target[:1]), target[:-1]])  # EOS stands at the start
        h, _ = self.f(one_hot(before, len(self.tokens)).float(), self.start(x))  # (T, B, H)
        return self.g(h)

    def predict(self, x: Tensor) -> Tensor:
        """What it writes, one token after the other, each by the one before."""
        state, token, written = self.start(x), torch.zeros(x.shape[1]).long(), []
        for _ in range(T):
            h, state = self.f.step(one_hot(token, len(self.tokens)).float(), state)  # (B, H)
            token = self.g(h).argmax(-1)
            written.append(token)
        return torch.stack(written)


class OneToMany(Writer):
    """One input, many outputs: the decoder starts from what a perceptron made of the picture."""

    title, about = "one to many", "a picture → its name"
    tokens = (EOS, *sorted(set("".join(NAMES))))

    def __init__(self):
        super().__init__()
        self.perceptron = Recurrent(cells.Perceptron(15, 64))
        self.names = coded([[*name, EOS] for name in NAMES], self.tokens)  # (T, 10)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Pictures (1, B, 15), and the letters of their digits' names (T, B)."""
        digits = torch.randint(10, (1, count))
        return pictures(digits), self.names[:, digits[0]]

    def start(self, x: Tensor) -> Tensor:
        """What the picture looks like."""
        h, _ = self.perceptron(x)
        return h  # (1, B, H)


class Unaligned(Writer):
    """Many inputs, many outputs: an encoder reads all of them before the decoder writes."""

    title, about = "many to many, unaligned", "English → German"
    words = ("", *ENGLISH.values())
    tokens = (EOS, "eins", "und", *GERMAN.values())

    def __init__(self):
        super().__init__()
        self.encoder = elman.GRU(len(self.words), 64)
        self.english = coded([english(n) for n in range(1, 1000)], self.words)
        self.german = coded([[*german(n), EOS] for n in range(1, 1000)], self.tokens)
        self.held_out = torch.arange(1, 1000) % 7 == 0  # such as 42

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Numbers in English (S, B) and in German (T, B), in training others than afterwards."""
        (numbers,) = torch.where(self.held_out != self.training)
        numbers = numbers[torch.randint(len(numbers), (count,))]
        return self.english[:, numbers], self.german[:, numbers]

    def start(self, x: Tensor) -> Tensor:
        """What the encoder has read, up to each number's own end."""
        _, last = self.encoder(one_hot(x, len(self.words)).float(), lengths=(x > 0).sum(0))
        return last  # (1, B, H)

    def shown(self, x: Tensor, k: int) -> list[str]:
        """The English words."""
        return [self.words[code] for code in x[:, k] if code > 0]


# -- learning, and what was learned --------------------------------------------------------------


def learn(net: Net, updates: int = 400, batch: int = 64) -> None:
    """Adam, with new examples at each update."""
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(updates):
        x, target = net.draw(batch)
        scores = net(x, target) if isinstance(net, Writer) else net(x)
        optimizer.zero_grad()
        cross_entropy(scores.flatten(0, 1), target.flatten()).backward()
        optimizer.step()


def printed(inputs: Sequence[Tensor] | Sequence[str]) -> str:
    """Words as a line, pictures as three lines of blocks."""
    if isinstance(inputs[0], str):
        return " ".join(inputs)
    dots = nn.functional.pad(torch.stack(inputs) > 0.5, (0, 2, 0, 1)).int()  # (T, 6, 5)
    blocks = (dots[:, ::2] + 2 * dots[:, 1::2]).transpose(0, 1).flatten(1)  # (3, 5 T)
    return f"\n{'':23}".join("".join(" ▀▄█"[block] for block in row) for row in blocks)


def main(picture: Path | None = None) -> dict[str, float]:
    """Let each net learn; the share of new examples that it then gets right from end to end."""
    shares, drawn = {}, []
    for kind in (OneToOne, OneToMany, ManyToOne, Aligned, Unaligned):
        torch.manual_seed(0)
        net = kind().eval()
        x, target = net.draw(500)
        # Of the examples, the one to be shown is the first of about six steps.
        k = min(range(500), key=lambda k: abs(net.unrolled(x, target, k).steps - 6))
        before = net.predict(x)
        begin = time.perf_counter()
        learn(net.train())
        seconds = time.perf_counter() - begin
        after = net.eval().predict(x)

        print(f"{net.title}: {net.about}, learned in {seconds:.1f} s")
        print(f"    {'input':18}", printed(net.shown(x, k)))
        for when, codes in (("before", before), ("after", after)):
            share = float((codes == target).all(0).float().mean())
            example = net.unrolled(x, codes, k)
            print(f"    {when:6} {share:4.0%} right ", *example.outputs)
        assert share > 0.95, f"{net.title}: {share:.1%} right"
        shares[net.title] = share
        drawn.append(example)
    if picture:
        draw_unrolled([drawn[:3], drawn[3:]], picture)
    return shares


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""Arithmetic: from 12+345 to 357, character by character (Zaremba & Sutskever, 2014)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from elman.errors import InputError
from elman.tasks.pairs.generated import Generated, GeneratedSettings, solving
from elman.training.settings import option

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": int.__add__, "-": int.__sub__, "*": int.__mul__,
}  # fmt: skip


@dataclass
class ArithmeticSettings(GeneratedSettings):
    """What arithmetic can be told."""

    operations: str = option("+", "Which of + - * there are, such as +-.")
    digits: int = option(3, "Digits of a number at most.", least=1, below=10)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = "".join(OPERATIONS)
        if not self.operations or not set(self.operations) <= set(known):
            raise InputError(f"`operations` must be some of {known}, received {self.operations!r}.")


class Arithmetic(Generated):
    """Learn to add, subtract or multiply, from numbers written out."""

    name, made = "arithmetic", "exercises"
    example = "--operations +- --digits 3"
    Settings = ArithmeticSettings
    settings: ArithmeticSettings
    verbs = (solving("calculate", "Work out exercises.", "RUN 12+345", "Exercises", "result"),)

    def draw(self, random: Random) -> tuple[str, str]:
        """Two numbers of any lengths, and what they make."""
        its = self.settings
        sign = random.choice(its.operations)
        a, b = (random.randrange(10 ** random.randint(1, its.digits)) for _ in range(2))
        return f"{a}{sign}{b}", str(OPERATIONS[sign](a, b))

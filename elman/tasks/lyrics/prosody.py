"""Between poems and the network of verse: tokens, forms, and forms as conditions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elman.data.forms import LINE_END, MARKS, Form, Forms, Place
from elman.data.lexicon import Lexicon
from elman.data.poems import Poem
from elman.data.vocabulary import Vocabulary
from elman.data.words import UNKNOWN
from elman.errors import InputError

# Of a tune with fewer poems there is too little to learn more of it than its name tells.
_POEMS_OF_A_TUNE = 5


class Verse(NamedTuple):
    """A poem in tokens.

    Attributes:
        tune: its heading.
        body: its lines and an empty one, int32 (N).
        form: what it is in; of one that was written, what it was to be in.
    """

    tune: str
    body: np.ndarray
    form: Form


class Notation:
    """How poems are written in tokens.

    A poem is read as its heading, which is the name of its tune, and its body, which is its lines
    and an empty one.

    Args:
        vocabulary: the tokens.

    Attributes:
        end: the token of a line's end.
        silent: which tokens are no words: marks and the line's end, bool (V).
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.end = self.encode("a\n")[-1]  # some vocabularies know no line without words
        self.silent = torch.tensor([token in MARKS for token in vocabulary.tokens])
        self.silent[self.end] = True

    def encode(self, text: str) -> list[int]:
        """The tokens of a text by id."""
        return self.vocabulary.encode_text(text).tolist()

    def heading(self, tune: str) -> list[int]:
        """What is read before a poem: the tune's name, if it has one, and the line's end."""
        return [*self.encode(tune), self.end]

    def body(self, lines: Sequence[str]) -> np.ndarray:
        """The tokens of a poem, int32 (N)."""
        return np.array([*self.encode("\n".join([*lines, ""])), self.end], np.int32)

    def verse(self, poem: Poem) -> Verse:
        """A poem in tokens."""
        body = self.body(poem.lines)
        return Verse(poem.tune, body, self.form(body))

    def words(self, body: np.ndarray) -> np.ndarray:
        """The tokens of a poem but for its marks and line ends."""
        return body[~self.silent.numpy()[body]]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Tokens as a form counts them."""
        return [LINE_END if id == self.end else self.vocabulary.tokens[id] for id in ids]

    def form(self, body: Iterable[int]) -> Form:
        """The form that a poem is in."""
        lines: list[list[str]] = [[]]
        for token in self.tokens(body):
            if token == LINE_END:
                lines.append([])
            else:
                lines[-1].append(token)
        return Form.of(filter(None, lines))


class Prosody(Notation):
    """What a model of verse knows of tunes and forms.

    Of each token of the body the form asks something: :class:`~elman.data.forms.Place` says what.
    Those are the conditions, and with them the tune: numbers from 1, and 0 where nothing is asked,
    as in the heading.

    Args:
        vocabulary: the tokens.
        forms: those of the poems that are learned from.

    Attributes:
        sizes: how many values each condition has, K of them.
        longest: how many tokens the longest body has.
    """

    def __init__(self, vocabulary: Vocabulary, forms: Forms):
        super().__init__(vocabulary)
        self.forms = forms
        often = (tune for tune, of in forms.counts.items() if of.total() >= _POEMS_OF_A_TUNE)
        self._tunes = Lexicon([UNKNOWN, *often])
        places = [list(form.places()) for form in {form for _, form, _ in forms.all()}]
        self.longest = max(map(len, places))
        self._marks = Lexicon(sorted({place.mark for of in places for place in of}))
        counts = ((place.left, place.clauses, place.lines) for of in places for place in of)
        self._most = [max(of) for of in zip(*counts, strict=True)]
        left, clauses, lines = (1 + most + 1 for most in self._most)
        self.sizes = (left, 1 + len(self._marks), clauses, lines, 1 + len(self._tunes))
        self._asked = lru_cache(maxsize=1 << 14)(self._conditions)

    def check(self, form: Form) -> None:
        """Refuse a form with marks that the model has never seen.

        Raises:
            InputError: it has some.
        """
        unseen = self._marks.unseen(mark for line in form.lines for _, mark in line if mark)
        if unseen:
            known = "".join(mark for mark in self._marks if mark != LINE_END)
            raise InputError(
                f"the form {form} has marks that the model has never seen: {''.join(unseen)}; "
                f"it knows {known or 'none'}."
            )

    def conditions(self, tune: str, form: Form, heading: int = 1) -> np.ndarray:
        """What is asked of the token that follows each, int16 (heading + N − 1, K).

        Args:
            tune: whose form it is.
            form: what the body is to be in, of N tokens.
            heading: how many tokens are read before it.
        """
        asked = self._asked(form)
        found = np.zeros((heading - 1 + len(asked), len(self.sizes)), np.int16)
        found[heading - 1 :, :-1] = asked
        found[:, -1] = 1 + self._tunes.ids([tune])[0]
        return found

    def _conditions(self, form: Form) -> np.ndarray:
        return np.array([self._numbers(place) for place in form.places()], np.int16)

    def _numbers(self, place: Place) -> list[int]:
        counts = (place.left, place.clauses, place.lines)
        # What is longer than anything that was learned from counts as much as that.
        left, clauses, lines = (1 + min(pair) for pair in zip(counts, self._most, strict=True))
        return [left, 1 + self._marks.ids([place.mark])[0], clauses, lines]

    def allowed(self, form: Form, heading: int = 1) -> Tensor:
        """Which tokens may follow each, bool (heading + N − 1, V); in the heading, all."""
        words = ~self.silent
        marks = {mark: self._alone(mark) for mark in self._marks}
        rows = [words if place.left else marks[place.mark] for place in form.places()]
        return torch.stack([torch.ones_like(words)] * (heading - 1) + rows)

    def _alone(self, mark: str) -> Tensor:
        id = self.end if mark == LINE_END else self.vocabulary.tokens.index(mark)
        return torch.arange(len(self.vocabulary)) == id

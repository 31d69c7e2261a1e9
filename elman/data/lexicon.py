"""Names with ids: the words, characters or labels that a model tells apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from elman.data.words import UNKNOWN
from elman.errors import ElmanError, InputError, brief

PAD = "<pad>"


class Lexicon:
    """An ordered list of names; a name's place is its id.

    A name that is not there has the id of ``<unk>``, if the lexicon has one, or else is an error.

    Args:
        names: different names, each at least one character.

    Attributes:
        names: the names by id.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._ids = {name: id for id, name in enumerate(self.names)}
        self._unknown = self._ids.get(UNKNOWN)

    @classmethod
    def count(
        cls,
        names: Iterable[str],
        special: Sequence[str] = (),
        size: int | None = None,
        min_count: int = 1,
    ) -> Lexicon:
        """Collect names: the special ones first, then the most frequent, ties by the alphabet.

        Args:
            names: every occurrence of every name.
            special: names that are there in any case, such as ``("<pad>", "<unk>")``.
            size: at most this many names, special ones included. Default: all.
            min_count: rarer names are left out; default 1.

        Raises:
            InputError: an argument is out of range.
        """
        return cls(most_frequent(Counter(names), special, size, min_count))

    def ids(self, names: Iterable[str]) -> list[int]:
        """Return the ids of names.

        Raises:
            InputError: a name is not there, and neither is ``<unk>``.
        """
        if self._unknown is not None:
            return [self._ids.get(name, self._unknown) for name in names]
        return [self._known(name) for name in names]

    def unseen(self, names: Iterable[str]) -> list[str]:
        """Return the names that have no id of their own, in order, each once."""
        return [name for name in dict.fromkeys(names) if name not in self._ids]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lexicon) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def to_json(self) -> list[str]:
        """Return the names as plain JSON content."""
        return list(self.names)

    @classmethod
    def from_json(cls, content: object) -> Lexicon:
        """Restore a lexicon from what ``to_json`` returned.

        Raises:
            ElmanError: the content is damaged.
        """
        texts = isinstance(content, list) and all(isinstance(name, str) for name in content)
        if not isinstance(content, list) or not texts or len(set(content)) < len(content):
            raise ElmanError(
                f"the names are {brief(content)}, expected a list of different texts; restore the "
                "file from the run that wrote it."
            )
        return cls(content)

    def _known(self, name: str) -> int:
        id = self._ids.get(name)
        if id is None:
            first = ", ".join(self.names[:12]) + (", …" if len(self) > 12 else "")
            raise InputError(
                f"{brief(name)} is not one of the {len(self):,} known names ({first}); correct it, "
                "or train with data that has it."
            )
        return id


def most_frequent(
    counts: Mapping[str, int], special: Sequence[str], size: int | None, min_count: int
) -> list[str]:
    """Return the special tokens, then the most frequent of those counted, ties by the alphabet.

    Args:
        counts: token → how often it is there.
        special: tokens that come first, whether they are counted or not.
        size: at most this many, special ones included; None for all.
        min_count: rarer ones are left out.

    Raises:
        InputError: ``size`` has no room beyond the special ones, or ``min_count`` leaves nothing.
    """
    if size is not None and size <= len(special):
        taken = f", which {' and '.join(special)} take" if special else ""
        raise InputError(
            f"the size of the vocabulary is {size}, expected more than {len(special)}{taken}; "
            "raise it."
        )
    common = [
        token
        for token, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count >= min_count and token not in special
    ]
    if min_count > 1 and not common:
        most = max(counts.values(), default=0)
        raise InputError(
            f"min_count is {min_count}, and no token is there more than {most:,} times; lower it."
        )
    return [*special, *common][:size]

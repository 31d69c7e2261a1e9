"""The share of the data that one of several processes reads."""

from __future__ import annotations

from typing import NamedTuple

from elman.errors import InputError


class Shard(NamedTuple):
    """Process ``rank`` of ``world``; the only one by default. A plain pair does as well.

    Rows 0 … n − 1 of a batch go to the processes in order and as evenly as n allows: rank 0 has the
    first n / world of them. So all processes together read what one alone would.
    """

    rank: int = 0
    world: int = 1

    def rows(self, count: int, *, even: bool = False) -> slice:
        """Those of ``count`` rows that are this process's.

        Args:
            count: rows of the whole batch.
            even: every process must have as many, so that the mean of their means is the mean.

        Raises:
            InputError: there is no such rank, or the rows cannot be split evenly.
        """
        rank, world = self
        if not 0 <= rank < world:
            raise InputError(
                f"shard is ({rank}, {world}), expected a rank from 0 to the number of processes "
                "− 1, and their number; correct it."
            )
        if even and count % world:
            raise InputError(
                f"{count} rows cannot be split evenly between {world} processes; expected a "
                f"multiple of {world}."
            )
        return slice(count * rank // world, count * (rank + 1) // world)

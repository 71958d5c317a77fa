"""Which runs a store holds, and which a sweep asks for, told by fingerprints: so that one may extend the other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from damjax._plan import SEED

# Axis, or "seed" -> its dimension and labels.
Coordinates = Mapping[str, tuple[str, np.ndarray]]


class Contents(NamedTuple):
    """Runs, as what can be kept in a store.

    Attributes:
        values: dimension -> fingerprints of its values, of which none comes twice.
        seeds: fingerprints of the keys, one per seed; a seed goes by its place.
        programs: static settings in words -> fingerprint of their program.
        by_place: axes of arrays, whose labels are places.
    """

    values: dict[str, list[str]]
    seeds: list[str]
    programs: dict[str, str]
    by_place: list[str]

    def shape(self) -> tuple[int, ...]:
        """Of the table of runs."""
        return (*map(len, self.values.values()), len(self.seeds))

    def joined(self, more: "Contents") -> "Contents":
        """These runs' table, with what is new behind what was there."""
        # A dict keeps the order in which values came, and each once.
        values = {dim: [*dict.fromkeys([*there, *more.values[dim]])] for dim, there in self.values.items()}
        seeds = [*self.seeds, *more.seeds[len(self.seeds) :]]
        return Contents(values, seeds, self.programs | more.programs, self.by_place)

    def joined_labels(self, there: Coordinates, more: "Contents", here: Coordinates) -> Coordinates:
        """The labels of what ``joined`` gives."""
        lengths = dict(zip((*self.values, SEED), self.joined(more).shape(), strict=True))
        new = {dim: ~np.isin(more.values[dim], held) for dim, held in self.values.items()}
        return {
            axis: (dim, np.arange(lengths[dim]))
            if axis == SEED or axis in self.by_place
            else (dim, np.concatenate([there[axis][1], labels[new[dim]]]))
            for axis, (dim, labels) in here.items()
        }

    def places(self, some: "Contents") -> tuple[np.ndarray, ...]:
        """Per dimension, where the values of some of these runs stand."""
        stands = {dim: {value: place for place, value in enumerate(held)} for dim, held in self.values.items()}
        found = [np.array([stands[dim][value] for value in some.values[dim]]) for dim in self.values]
        return (*found, np.arange(len(some.seeds)))


def unlike(fingerprints: Sequence[str]) -> list[str]:
    """Fingerprints of which none comes twice: the next of the same kind gets a number.

    Example:
        >>> unlike(["a", "b", "a"])
        ['a', 'b', 'a #2']
    """
    seen: Counter[str] = Counter()
    found = []
    for fingerprint in fingerprints:
        seen[fingerprint] += 1
        found.append(fingerprint if seen[fingerprint] == 1 else f"{fingerprint} #{seen[fingerprint]}")
    return found

"""Which runs a store holds, and which a sweep asks for, as fingerprints: so that one may extend the other."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from damjax._checks import brief
from damjax.sweeps.axes import Seeds
from damjax.sweeps.plan import SEED, Plan

__all__ = ["Contents", "Coordinates", "Description", "contents_of", "digest", "unlike"]

FORMAT = 2

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
        """The table of these runs and of more: what is new stands behind what was there."""
        # A dict keeps the order in which values came, and each once.
        values = {dim: [*dict.fromkeys([*own, *more.values[dim]])] for dim, own in self.values.items()}
        seeds = [*self.seeds, *more.seeds[len(self.seeds) :]]
        return Contents(values, seeds, self.programs | more.programs, self.by_place)

    def joined_labels(self, labels: Coordinates, more: "Contents", labels_of_more: Coordinates) -> Coordinates:
        """The labels of what ``joined`` gives."""
        lengths = dict(zip((*self.values, SEED), self.joined(more).shape(), strict=True))
        new = {dim: ~np.isin(more.values[dim], own) for dim, own in self.values.items()}
        return {
            axis: (dim, np.arange(lengths[dim]))
            if axis == SEED or axis in self.by_place
            else (dim, np.concatenate([labels[axis][1], of_more[new[dim]]]))
            for axis, (dim, of_more) in labels_of_more.items()
        }

    def places(self, some: "Contents") -> tuple[np.ndarray, ...]:
        """Per dimension, where the values of some of these runs stand."""
        place_of = {dim: {value: place for place, value in enumerate(own)} for dim, own in self.values.items()}
        places = [np.array([place_of[dim][value] for value in some.values[dim]]) for dim in self.values]
        return (*places, np.arange(len(some.seeds)))


class Description(NamedTuple):
    """What a store says of itself.

    Attributes:
        identity: what all its runs have in common.
        contents: its runs.
        block: shape of the blocks of its table.
        batch_size: what its maker passed, or else the size of a block.
        results: name -> (dtype, own shape, names of own axes).
    """

    identity: dict[str, Any]
    contents: Contents
    block: tuple[int, ...]
    batch_size: int
    results: dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]

    def as_attribute(self) -> dict[str, Any]:
        """As it is kept."""
        # As lists: JSON promises no order of names.
        contents = self.contents._asdict() | {"values": list(self.contents.values.items())}
        results = [(name, *result) for name, result in self.results.items()]
        return {"format": FORMAT, **self._asdict(), "contents": contents, "results": results}

    @classmethod
    def from_attribute(cls, attribute: Mapping[str, Any]) -> "Description":
        """What ``as_attribute`` gave, after a time among JSON."""
        results = {name: (dtype, tuple(shape), tuple(dims)) for name, dtype, shape, dims in attribute["results"]}
        contents = Contents(**attribute["contents"] | {"values": dict(attribute["contents"]["values"])})
        return cls(attribute["identity"], contents, tuple(attribute["block"]), attribute["batch_size"], results)

    def differences(self, identity: Mapping[str, Any], contents: Contents, batch_size: int | None) -> Iterator[str]:
        """In what another sweep is not of this very program, by the same keys, in words; nothing if its runs can join.

        Args:
            identity: what all runs of the other sweep have in common.
            contents: its runs.
            batch_size: what it was called with.
        """
        both = [settings for settings in self.contents.programs if settings in contents.programs]
        num_seeds = min(len(self.contents.seeds), len(contents.seeds))

        def comparable(identity: Mapping[str, Any], runs: Contents, size: int) -> dict[str, Any]:
            """What must agree."""
            program = {"program": digest(*(runs.programs[settings] for settings in both)) if both else ""}
            parts = dict(identity) | {"batch_size": size, "by place": runs.by_place}
            seeds = f"the digest {digest(*runs.seeds[:num_seeds])} of the first {num_seeds}"
            return parts | {"function": identity["function"] | program, "seeds": {"have": seeds}}

        # The size of a block is what the one that was passed comes to.
        fits = batch_size in (None, self.batch_size, int(np.prod(self.block)))
        stored = comparable(self.identity, self.contents, self.batch_size)
        return _differences(stored, comparable(identity, contents, self.batch_size if fits else int(batch_size or 0)))

    def joined(self, more: "Description") -> "Description":
        """What a store says that holds these runs and more."""
        return self._replace(contents=self.contents.joined(more.contents), results=more.results)


def _differences(stored: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """In words, what a store says ("there") and a sweep wants ("here") where these are not the same."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for part in {**stored, **wanted}:
            label = f"{name} {part}".strip()
            if part not in wanted:
                yield f"{label} is {brief(stored[part])} there and missing here"
            elif part not in stored:
                yield f"{label} is missing there and {brief(wanted[part])} here"
            else:
                yield from _differences(stored[part], wanted[part], label)
    elif stored != wanted:
        yield f"{name} is {brief(stored)} there and {brief(wanted)} here"


def contents_of(plan: Plan, seeds: Seeds, programs: Sequence[str]) -> Contents:
    """The runs of a sweep.

    Args:
        plan: lays them out.
        seeds: the keys, taken apart.
        programs: fingerprints, one per group of the plan.
    """
    axes = {axis: _fingerprints(plan, axis) for axis in plan.axes}
    values = {
        dim: unlike([", ".join(parts) for parts in zip(*(axes[axis] for axis in names), strict=True)])
        for dim, names in plan.dims.items()
    }
    keys = [digest(*seeds.take(np.array([place]))) for place in range(plan.shape[-1])]
    static = [(dim, axis) for dim, names in plan.dims.items() for axis in names if axis in plan.static]
    settings = []
    for group in plan.groups:
        places = dict(zip(plan.dims, np.unravel_index(group.runs[0], plan.shape), strict=False))
        settings.append(", ".join(f"{axis} = {axes[axis][places[dim]]}" for dim, axis in static))
    by_place = [axis for axis, array in plan.axes.items() if array.ndim > 1]
    return Contents(values, keys, dict(zip(unlike(settings), programs, strict=True)), by_place)


def _fingerprints(plan: Plan, axis: str) -> list[str]:
    """The values of an axis, kept apart: numbers to the last bit, what is static by its kind and label."""
    values = plan.axes[axis]
    if axis not in plan.static:
        return [digest(np.asarray(value)) for value in values]
    labels = plan.coordinates()[axis][1]
    return [f"{type(value).__name__} {label}" for value, label in zip(values, labels, strict=True)]


def unlike(fingerprints: Sequence[str]) -> list[str]:
    """Fingerprints of which none comes twice: the next of the same kind gets a number.

    Example:
        >>> unlike(["a", "b", "a"])
        ['a', 'b', 'a #2']
    """
    seen: Counter[str] = Counter()
    numbered = []
    for fingerprint in fingerprints:
        seen[fingerprint] += 1
        numbered.append(fingerprint if seen[fingerprint] == 1 else f"{fingerprint} #{seen[fingerprint]}")
    return numbered


def digest(*parts: str | bytes | np.ndarray) -> str:
    """A short fingerprint of texts and arrays."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype} {part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        sha.update(part.encode() if isinstance(part, str) else part)
    return sha.hexdigest()[:16]

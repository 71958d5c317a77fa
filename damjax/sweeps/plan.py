"""The runs of a sweep, laid out: settings crossed or zipped, seeds, and the batches in which they are computed."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from damjax.sweeps.axes import axis_labels, axis_values, matching

__all__ = ["Batch", "Group", "Plan", "Table", "make_plan", "own_dims"]

SEED = "seed"
RESERVED = (SEED, "finite", "batch_size", "limit")
OF_STORES = (*RESERVED, "done")


class Batch(NamedTuple):
    """Runs that are computed together: a block of the table of runs.

    Attributes:
        group: which of the plan's groups they belong to.
        runs: flat indices, (batch_size,); where the block holds none of this sweep's, one of its others again.
        counts: which of them count, (batch_size,).
        corner: the number of the block along every dimension of the table.
    """

    group: int
    runs: np.ndarray
    counts: np.ndarray
    corner: tuple[int, ...]


class Table(NamedTuple):
    """Where runs stand: those of this sweep, and those of the sweeps that its store has served before.

    Attributes:
        shape: (settings.., S), the plan's or larger.
        block: shape of the blocks that are computed, and kept, together.
        places: per dimension, where each of the plan's values stands.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]
    places: tuple[np.ndarray, ...]

    @property
    def size(self) -> int:
        """Runs per block, which is the size of a batch."""
        return math.prod(self.block)


class Group(NamedTuple):
    """Runs of one program.

    Attributes:
        static: settings that are part of the program.
        runs: flat indices, (runs,).
    """

    static: dict[str, Any]
    runs: np.ndarray


class Plan(NamedTuple):
    """All runs of a sweep, in the order of an array of ``shape``.

    Attributes:
        dims: dimension -> the axes along it; an axis that is crossed has a dimension of its own name.
        axes: axis -> its values, leading axis its dimension.
        static: axes that are part of the program.
        shape: (settings.., S).
        groups: the runs by their static settings.
    """

    dims: dict[str, tuple[str, ...]]
    axes: dict[str, np.ndarray]
    static: tuple[str, ...]
    shape: tuple[int, ...]
    groups: tuple[Group, ...]

    @property
    def num_runs(self) -> int:
        """Settings times seeds."""
        return int(np.prod(self.shape))

    def settings(self, runs: np.ndarray) -> dict[str, np.ndarray]:
        """The traced settings of these runs, every array with a leading (runs,)."""
        places = dict(zip(self.dims, np.unravel_index(runs, self.shape), strict=False))
        return {
            axis: self.axes[axis][places[dim]]
            for dim, names in self.dims.items()
            for axis in names
            if axis not in self.static
        }

    def table(self, most: int, num_devices: int = 1) -> Table:
        """A table of these runs alone, in blocks of at most so many: along seeds first, then the last settings.

        Devices take a block each: of all blocks that need as few rounds, these are the smallest.
        """
        # What belongs to several programs belongs to several blocks.
        lengths = [1 if self._is_static(dim) else length for dim, length in enumerate(self.shape)]
        block, free = [1] * len(lengths), most
        for dim in reversed(range(len(lengths))):
            block[dim] = min(free, lengths[dim])
            free //= lengths[dim]
            if not free:
                break
        for dim, length in enumerate(lengths):
            if block[dim] == 1:
                continue
            beside = math.prod(lengths[:dim])
            rounds = -(-beside * -(-length // block[dim]) // num_devices)
            block[dim] = -(-length // (rounds * num_devices // beside))
            if block[dim] > 1:
                break
        return Table(self.shape, tuple(block), tuple(map(np.arange, self.shape)))

    def batches(self, table: Table) -> list[Batch]:
        """The blocks of the table that hold runs of this sweep, each of one program, program by program.

        Their order is the same in every table that has room for these runs: what a store gets later, for other sweeps,
        comes behind. So processes that share a store number their batches alike.
        """
        group_of = np.zeros(self.num_runs, int)
        for number, group in enumerate(self.groups):
            group_of[group.runs] = number
        # Per dimension and block, which of the plan's values it holds, -1 for none.
        rows = []
        for length, block, places in zip(table.shape, table.block, table.places, strict=True):
            value_at = np.full(-(-length // block) * block, -1)
            value_at[places] = np.arange(len(places))
            rows.append(value_at.reshape(-1, block))
        batches = []
        for corner in np.ndindex(*map(len, rows)):
            values = np.ix_(*(value_at[number] for value_at, number in zip(rows, corner, strict=True)))
            counts = functools.reduce(np.logical_and, [value >= 0 for value in values]).reshape(-1)
            if counts.any():
                everywhere = tuple(np.broadcast_arrays(*(np.maximum(value, 0) for value in values)))
                runs = np.ravel_multi_index(everywhere, self.shape).reshape(-1)
                runs = np.where(counts, runs, runs[counts][0])
                batches.append(Batch(int(group_of[runs[0]]), runs, counts, corner))
        return sorted(batches, key=lambda batch: batch.group)

    def _is_static(self, dim: int) -> bool:
        """Whether the program changes along this dimension."""
        names = list(self.dims.values())[dim] if dim < len(self.dims) else ()
        return not set(names).isdisjoint(self.static)

    def coordinates(self) -> dict[str, tuple[str, np.ndarray]]:
        """Axis -> its dimension and labels: its values where they are scalars, else their places."""
        return {
            axis: (dim, axis_labels(self.axes[axis], axis in self.static))
            for dim, names in self.dims.items()
            for axis in names
        }

    def find(self, at: Mapping[str, Any]) -> int:
        """The run at these coordinates: a label for every dimension, and "seed".

        Raises:
            ValueError: a coordinate that is missing, unknown or in no run.
        """
        coordinates = self.coordinates() | {SEED: (SEED, np.arange(self.shape[-1]))}
        if not isinstance(at, Mapping):
            raise ValueError(f"at must map {list(coordinates)} to the coordinates of a run, but it is {at!r}")
        if unknown := set(at) - set(coordinates):
            raise ValueError(
                f"at must hold coordinates of the sweep, {list(coordinates)}, but it holds {sorted(unknown)}"
            )
        places = []
        for dim, size in zip((*self.dims, SEED), self.shape, strict=True):
            labels = {axis: at[axis] for axis, (of, _) in coordinates.items() if of == dim and axis in at}
            if not labels:
                raise ValueError(f"at must say where along {dim!r} the run is, but it holds {list(at)} only")
            matches = np.ones(size, bool)
            for axis, label in labels.items():
                matches &= matching("at", coordinates[axis][1], np.asarray(label))
            along, values = np.flatnonzero(matches), {axis: coordinates[axis][1].tolist() for axis in labels}
            if not len(along):
                raise ValueError(f"at must name a run of the sweep, but no setting has {labels}; there are {values}")
            if len(along) > 1:
                others = [axis for axis in self.dims.get(dim, ()) if axis not in at]
                raise ValueError(
                    f"at must name one run of the sweep, but {len(along)} settings have {labels}"
                    + (f"; say {', '.join(others)} too" if others else f", at the places {along.tolist()}")
                )
            places.append(int(along[0]))
        return int(np.ravel_multi_index(places, self.shape))

    def describe(self, run: int) -> str:
        """The coordinates of one run, in words."""
        places = np.unravel_index(run, self.shape)
        coordinates = self.coordinates()
        named = [
            f"{axis}={coordinates[axis][1][place]}"
            for (_, names), place in zip(self.dims.items(), places, strict=False)
            for axis in names
        ]
        return ", ".join([*named, f"{SEED}={places[-1]}"])


def own_dims(name: str, ndim: int) -> tuple[str, ...]:
    """What the own axes of a result are called where the user does not say."""
    return tuple(f"{name}_{axis}" for axis in range(ndim))


def make_plan(
    keys: Any, axes: Mapping[str, Any], *, zipped: Sequence[Sequence[str]] = (), static: Sequence[str] = ()
) -> Plan:
    """Lay out the runs.

    Args:
        keys: a typed key array (S,), or a pytree of arrays with a leading S.
        axes: name -> values; strings and other objects are static.
        zipped: groups of axes that go together instead of being crossed.
        static: further axes that are part of the program.

    Raises:
        ValueError: no seed or no value, unequal lengths, unknown or repeated names.

    Example:
        >>> plan = make_plan(np.arange(3), {"rho": [0.0, 0.5], "algorithm": ["ogd", "c_dogd"]})
        >>> plan.shape, [group.static for group in plan.groups], plan.describe(4)
        ((2, 2, 3), [{'algorithm': 'ogd'}, {'algorithm': 'c_dogd'}], 'rho=0.0, algorithm=c_dogd, seed=1')
    """
    if not isinstance(static, (list, tuple, set, frozenset)):
        raise ValueError(f"static must be a list of names of axes, but it is {static!r}; write [{static!r}]")
    values = {name: axis_values(name, listed, name in static) for name, listed in axes.items()}
    if taken := [name for name in values if name in OF_STORES]:
        raise ValueError(f"axes must not be called {', '.join(OF_STORES)}, but one is called {taken[0]!r}; rename it")
    dims = _dimensions(values, zipped)
    if unknown := set(static) - set(values):
        raise ValueError(f"static must name axes, which are {list(values)}, but it names {sorted(unknown)}")
    fixed = tuple(name for name, array in values.items() if name in static or array.dtype.kind in "OUS")
    num_seeds = _num_seeds(keys)
    shape = (*(len(values[names[0]]) for names in dims.values()), num_seeds)
    return Plan(dims, values, fixed, shape, _groups(dims, values, fixed, shape))


def _dimensions(values: Mapping[str, np.ndarray], zipped: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Dimension -> axes, in the order in which the axes came; a zipped one has the name of its first axis."""
    if not isinstance(zipped, (list, tuple)) or not all(isinstance(names, (list, tuple)) for names in zipped):
        raise ValueError(f"zipped must be a list of groups of axes, such as [('rho', 'rate')], but it is {zipped!r}")
    together = [name for names in zipped for name in names]
    if unknown := set(together) - set(values):
        raise ValueError(f"zipped must name axes, which are {list(values)}, but it names {sorted(unknown)}")
    if repeated := {name for name in together if together.count(name) > 1}:
        raise ValueError(f"zipped must name every axis at most once, but {sorted(repeated)} come twice")
    for names in zipped:
        lengths = {name: len(values[name]) for name in names}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"axes that are zipped must be equally long, but their lengths are {lengths}")
    group_of = {names[0]: tuple(names) for names in zipped if names}
    crossed = [name for name in values if name not in together or name in group_of]
    return {name: group_of.get(name, (name,)) for name in crossed}


def _num_seeds(keys: Any) -> int:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(keys)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1 or shapes[0][0] == 0:
        raise ValueError(
            f"keys must have one leading axis of seeds, but the shapes are {shapes}; jax.random.split(key, num_seeds)"
            f" makes such keys"
        )
    return shapes[0][0]


def _groups(
    dims: Mapping[str, tuple[str, ...]],
    values: Mapping[str, np.ndarray],
    static: tuple[str, ...],
    shape: tuple[int, ...],
) -> tuple[Group, ...]:
    runs = np.arange(np.prod(shape, dtype=int))
    places = dict(zip(dims, np.unravel_index(runs, shape), strict=False))
    # Values may repeat along a zipped axis: runs belong together when the values agree, not their places.
    settings: dict[Any, dict[str, Any]] = {}
    labels = np.zeros(len(runs), int)
    of_axis = {axis: dim for dim, names in dims.items() for axis in names}
    columns = {axis: values[axis].tolist() for axis in static}
    codes = np.stack([places[of_axis[axis]] for axis in static], axis=1) if static else np.zeros((len(runs), 0), int)
    distinct, inverse = np.unique(codes, axis=0, return_inverse=True)
    for code, row in enumerate(distinct):
        chosen = {axis: columns[axis][place] for axis, place in zip(static, row.tolist(), strict=True)}
        kind = _exactly(tuple(chosen.values()))
        settings.setdefault(kind, chosen)
        labels[inverse.reshape(-1) == code] = list(settings).index(kind)
    return tuple(Group(chosen, runs[labels == number]) for number, chosen in enumerate(settings.values()))


def _exactly(value: Any) -> Any:
    """Something hashable that is the same for settings only if they make the same program.

    1, 1.0 and True are equal and yet make different programs, and so are 0.0 and -0.0, alone or inside of others. What
    is not looked into goes by its identity: programs that turn out to be the same are compiled once all the same.
    """
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return type(value), value
    if isinstance(value, float):
        return type(value), value.hex()
    if isinstance(value, np.generic):
        return type(value), value.tobytes()
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_exactly, value))
    return type(value), id(value)

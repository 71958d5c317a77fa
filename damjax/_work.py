"""What a sweep computes, and where: from batches of its plan to results by name."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damjax._checks import check_count
from damjax._contents import Contents, Coordinates, unlike
from damjax._memory import fit_batch_size, free_bytes
from damjax._plan import RESERVED, SEED, Batch, Plan, Table, own_dims
from damjax._programs import Device, Seeds, Signature, compile_batch
from damjax._store import StoreError, digest, versions

# A batch that stays in a core's cache is faster than a large one; accelerators want more at once.
LARGEST_BATCH = {"cpu": 64}
LARGEST_BATCH_ELSEWHERE = 4096
SHARE_OF_FREE_MEMORY = 0.5
# Programs of the last sweeps, by what they compute: so that the next sweep of the same compiles nothing.
MAX_RECENT = 32
RECENT: dict[Any, jax.stages.Compiled] = {}


class Work(NamedTuple):
    """What a sweep computes, and where.

    Attributes:
        plan: the runs.
        seeds: the keys, taken apart.
        devices: of this process.
        vectorize: how runs are mapped.
        name: of the user's function.
        axes_of: names that the user gave to the own axes of results.
        ones: per group of the plan, the function of one run.
        signatures: per group, what that takes.
        prints: per group, the fingerprint of its program.
        held: the programs that were compiled for this sweep.
    """

    plan: Plan
    seeds: Seeds
    devices: tuple[Device, ...]
    vectorize: Callable[..., Any]
    name: str
    axes_of: Mapping[str, tuple[str, ...]]
    ones: tuple[Callable[..., Any], ...]
    signatures: tuple[Signature, ...]
    prints: tuple["Fingerprint", ...]
    held: dict[Any, jax.stages.Compiled]

    def program(self, group: int, size: int) -> jax.stages.Compiled:
        """The program of a group's batches, compiled once; sweeps that compute the same share it."""
        # Of the signature, what the fingerprint leaves out: how the arguments are called.
        called = self.signatures[group]._replace(static=())
        exact = self.prints[group].calls_back == ""
        recipe = (self.prints[group].digest if exact else group, called, self.vectorize, self.devices, size)
        if recipe not in self.held:
            found = RECENT.pop(recipe, None) if exact else None
            if found is None:
                found = compile_batch(self.ones[group], self.signatures[group], self.vectorize, self.devices, size)
            self.held[recipe] = found
            if exact:
                RECENT[recipe] = found
            while len(RECENT) > MAX_RECENT:
                del RECENT[next(iter(RECENT))]
        return self.held[recipe]

    def programs(self, size: int) -> list[jax.stages.Compiled]:
        """Those of all groups; their results must be alike."""
        found = [self.program(group, size) for group in range(len(self.plan.groups))]
        first = _shapes(found[0])
        if not first:
            raise ValueError("run must return at least one array, but it returns nothing")
        self._check_names({name: shape for name, (shape, _) in first.items()})
        for group, program in zip(self.plan.groups, found, strict=True):
            if _shapes(program) != first:
                raise ValueError(
                    f"run must return the same names, shapes and dtypes at every setting, but at {group.static} it"
                    f" returns {_shapes(program)}, and at {self.plan.groups[0].static} {first}"
                )
        return found

    def fit(self, size: int | None, memory: int | None) -> int:
        """The number of runs per batch: at most what is given, or what fits, and that of a block of the plan."""
        if size is not None:
            check_count("batch_size", size)
            size = self.blocks_of(size)
            self.programs(size)
            return size
        if memory is None:
            memory = int(SHARE_OF_FREE_MEMORY * free_bytes(self.devices))
        else:
            check_count("memory", memory)
        most = LARGEST_BATCH.get(self.devices[0].platform, LARGEST_BATCH_ELSEWHERE)
        return self.blocks_of(fit_batch_size(self.programs, self.blocks_of(most), memory))

    def blocks_of(self, most: int) -> int:
        """The size of the plan's blocks of at most so many runs."""
        return math.prod(self.table(most).block)

    def table(self, most: int) -> Table:
        """The plan's, for these devices."""
        return self.plan.table(most, len(self.devices))

    def own_dims(self, name: str, ndim: int) -> tuple[str, ...]:
        """What the own axes of a result are called."""
        return self.axes_of.get(name, own_dims(name, ndim))

    def _check_names(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise for names of results, or of their axes, that clash."""
        if unknown := set(self.axes_of) - set(shapes):
            raise ValueError(f"dims must name results of run, which are {list(shapes)}, but it names {sorted(unknown)}")
        lengths: dict[str, int] = {}
        for name, shape in shapes.items():
            own = self.own_dims(name, len(shape))
            if len(own) != len(shape) or len(set(own)) < len(own):
                raise ValueError(
                    f"dims must give each of the {len(shape)} axes of {name!r} a name of its own, but it gives {own}"
                )
            for dim, length in zip(own, shape, strict=True):
                if lengths.setdefault(dim, length) != length:
                    raise ValueError(
                        f"dims must give one name to axes of one length, but {dim!r} has {lengths[dim]} and {length}"
                    )
        if taken := (set(shapes) | set(lengths)) & {*self.plan.axes, *RESERVED} or set(shapes) & set(lengths):
            raise ValueError(f"run must not return {sorted(taken)}: so are axes or coordinates called; rename them")

    def results(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Name -> shape and dtype of what one run returns."""
        return {name: jax.ShapeDtypeStruct(*kind) for name, kind in _shapes(self.program(0, size)).items()}

    def start(self, batches: Sequence[Batch], size: int) -> Any:
        """Set the devices to work on batches of one group, one each; the arrays that will hold the results."""
        program = self.program(batches[0].group, size)
        # Every device needs something to do: those that are left over repeat the last batch.
        padded = [*batches, *[batches[-1]] * (len(self.devices) - len(batches))]
        return program(*self.arguments(padded))

    def finish(self, started: Any, size: int) -> list[dict[str, np.ndarray]]:
        """Wait for the results, name -> (size, ...), of every device."""
        try:
            arrays = {name: np.asarray(leaf, _plain(leaf.dtype)) for name, leaf in named_leaves(started)}
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise MemoryError(
                f"a batch of {size} runs did not fit in memory; what was finished is in the store, if there is one."
                f" Give a smaller batch_size or memory"
            ) from error
        return [
            {name: array[start : start + size] for name, array in arrays.items()}
            for start in range(0, len(self.devices) * size, size)
        ]

    def arguments(self, batches: Sequence[Batch]) -> tuple[Any, Any]:
        """What a program takes for these batches."""
        runs = np.concatenate([batch.runs for batch in batches])
        return self.seeds.take(runs % self.plan.shape[-1]), self.plan.settings(runs)

    def identity(self) -> dict[str, Any]:
        """What tells this sweep from others: the programs of one run, its settings and seeds, and the versions.

        Raises:
            StoreError: a program whose results depend on what it can't be told by.
        """
        if any(found.calls_back == "results" for found in self.prints):
            raise StoreError(
                f"store must be left out, since {self.name} calls back into Python (jax.pure_callback, io_callback):"
                f" whether another call would run the same Python function can't be seen, and its results must not be"
                f" mixed with these"
            )
        return {
            "function": {"name": self.name},
            "vectorize": getattr(self.vectorize, "__name__", repr(type(self.vectorize))),
            "dimensions": [list(names) for names in self.plan.dims.values()],
            "axis": {name: _kind(values, name in self.plan.static) for name, values in self.plan.axes.items()},
            "version of": versions(),
            "platform": self.devices[0].platform,
            "double precision": bool(jax.config.read("jax_enable_x64")),
        }

    def coordinates(self) -> Coordinates:
        """The labels of all runs."""
        return {**self.plan.coordinates(), SEED: (SEED, np.arange(self.plan.shape[-1]))}

    def contents(self) -> Contents:
        """The runs of this sweep, as a store knows them."""
        plan = self.plan
        told = {axis: self._told(axis) for axis in plan.axes}
        values = {
            dim: unlike([", ".join(parts) for parts in zip(*(told[axis] for axis in names), strict=True)])
            for dim, names in plan.dims.items()
        }
        seeds = [digest(*self.seeds.take(np.array([place]))) for place in range(plan.shape[-1])]
        static = [(dim, axis) for dim, names in plan.dims.items() for axis in names if axis in plan.static]
        called = []
        for group in plan.groups:
            places = dict(zip(plan.dims, np.unravel_index(group.runs[0], plan.shape), strict=False))
            called.append(", ".join(f"{axis} = {told[axis][places[dim]]}" for dim, axis in static))
        programs = dict(zip(unlike(called), (found.digest for found in self.prints), strict=True))
        return Contents(values, seeds, programs, [axis for axis, array in plan.axes.items() if array.ndim > 1])

    def _told(self, axis: str) -> list[str]:
        """The values of an axis, told from others: numbers to the last bit, what is static by its kind and label."""
        values = self.plan.axes[axis]
        if axis not in self.plan.static:
            return [digest(np.asarray(value)) for value in values]
        labels = self.plan.coordinates()[axis][1]
        return [f"{type(value).__name__} {label}" for value, label in zip(values, labels, strict=True)]


def _kind(values: np.ndarray, static: bool) -> str:
    """What the values of an axis have in common."""
    return "static" if static else f"{values.dtype}{list(values.shape[1:])}"


class Fingerprint(NamedTuple):
    """What is known of a program without running it.

    Attributes:
        digest: of its text; it tells apart functions whose source is the same but whose surroundings are not.
        calls_back: into Python, which no text shows: "" nowhere, "effects" for no results (``jax.debug.print``),
            "results" where they depend on it (``jax.pure_callback``).
    """

    digest: str
    calls_back: str


def fingerprint(one: Callable[..., Any], signature: Signature) -> Fingerprint:
    """The fingerprint of what one run computes, from its lowered program, which holds the constants it closes over.

    Raises:
        ValueError: a program whose random bits would depend on the runs beside it.
    """
    text = jax.jit(one).lower(*signature.examples()).as_text()
    if "rng_bit_generator" in text:
        raise ValueError(
            "run must draw its random bits by keys of the kind 'threefry2x32' (jax.random.key(seed)), but it draws some"
            " by 'rbg' or 'unsafe_rbg': mapped, those depend on the batch, so that no run would be that of its key"
        )
    calls = re.findall(r"custom_call @\w*callback\w*\(.*-> (.*)", text)
    kind = "results" if any(result != "()" for result in calls) else "effects" if calls else ""
    return Fingerprint(digest(text), kind)


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Leaves with their paths as names: of attributes, keys and places, joined by dots; "value" for a bare array."""

    def part(entry: Any) -> str:
        return str(next(getattr(entry, field) for field in ("name", "key", "idx") if hasattr(entry, field)))

    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(".".join(map(part, path)) or "value", leaf) for path, leaf in leaves]


def _shapes(program: jax.stages.Compiled) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Name -> shape and dtype of what one run returns."""
    leaves = named_leaves(program.out_info)
    for name, leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise ValueError(
                f"run must return arrays of numbers, but {name!r} holds {leaf.dtype}; return its data instead"
            )
    found = {name: (leaf.shape[1:], _plain(leaf.dtype)) for name, leaf in leaves}
    if len(found) < len(leaves):
        names = [name for name, _ in leaves]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"run must return arrays under different names, but {twice} come twice; rename one")
    return found


def _plain(dtype: Any) -> np.dtype:
    """A dtype that NumPy, xarray and zarr know: bfloat16 and its like become float32, small integers int8."""
    if np.dtype(dtype).kind != "V":
        return np.dtype(dtype)
    return np.dtype(np.float32 if jnp.issubdtype(dtype, jnp.floating) else np.int8)

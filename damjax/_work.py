"""What a sweep computes, and where: from batches of its plan to results by name."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damjax._checks import check_count
from damjax._memory import fit_batch_size, free_bytes
from damjax._plan import RESERVED, Batch, Plan
from damjax._programs import Device, Seeds, Signature, compile_batch, signature
from damjax._store import digest, versions

# A batch that stays in a core's cache is faster than a large one; accelerators want more at once.
LARGEST_BATCH = {"cpu": 64}
LARGEST_BATCH_ELSEWHERE = 4096
SHARE_OF_FREE_MEMORY = 0.5


class Work(NamedTuple):
    """What a sweep computes, and where.

    Attributes:
        run: the user's function.
        plan: its runs.
        seeds: the keys, taken apart.
        devices: of this process.
        vectorize: how runs are mapped.
    """

    run: Callable[..., Any]
    plan: Plan
    seeds: Seeds
    devices: tuple[Device, ...]
    vectorize: Callable[..., Any]

    def signature(self, group: int) -> Signature:
        """Of the runs of one group."""
        static, runs = self.plan.groups[group]
        return signature(self.seeds, self.plan.settings(runs[:1]), static)

    def program(self, group: int, size: int, devices: tuple[Device, ...] | None = None) -> jax.stages.Compiled:
        """The program of a group's batches."""
        used = self.devices if devices is None else devices
        return compile_batch(self.run, self.signature(group), self.vectorize, used, size)

    def programs(self, size: int) -> list[jax.stages.Compiled]:
        """Those of all groups; their results must be alike."""
        found = [self.program(group, size) for group in range(len(self.plan.groups))]
        first = _shapes(found[0])
        if taken := set(first) & {*self.plan.axes, *RESERVED}:
            raise ValueError(f"run must not return {sorted(taken)}: so are axes or coordinates called; rename them")
        for group, program in zip(self.plan.groups, found, strict=True):
            if _shapes(program) != first:
                raise ValueError(
                    f"run must return the same names, shapes and dtypes at every setting, but at {group.static} it"
                    f" returns {_shapes(program)}, and at {self.plan.groups[0].static} {first}"
                )
        return found

    def fit(self, size: int | None, memory: int | None) -> int:
        """The number of runs per batch: as given, or what fits."""
        if size is not None:
            check_count("batch_size", size)
            self.programs(size)
            return size
        if memory is None:
            memory = int(SHARE_OF_FREE_MEMORY * free_bytes(self.devices))
        else:
            check_count("memory", memory)
        most = LARGEST_BATCH.get(self.devices[0].platform, LARGEST_BATCH_ELSEWHERE)
        share = -(-max(len(group.runs) for group in self.plan.groups) // len(self.devices))
        # Equal rounds: a last one that is nearly empty would take as long as the others.
        rounds = -(-share // most)
        return fit_batch_size(self.programs, -(-share // rounds), memory)

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
            arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(started)}
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
        """What tells this sweep from others: the programs of one run, its settings and seeds, and the versions."""
        programs = []
        for group in range(len(self.plan.groups)):
            of_group = self.signature(group)
            # The lowered program holds the constants that the function closes over, too.
            lowered = jax.jit(of_group.one(self.run)).lower(*of_group.examples())
            programs.append(lowered.as_text())
        return {
            "function": {"name": getattr(self.run, "__qualname__", repr(type(self.run))), "program": digest(*programs)},
            "vectorize": getattr(self.vectorize, "__name__", repr(type(self.vectorize))),
            "axis": {name: _summary(self.plan.coordinates()[name][1], self.plan.axes[name]) for name in self.plan.axes},
            "dimensions": {dim: list(names) for dim, names in self.plan.dims.items()},
            "seeds": {"number": self.plan.shape[-1], "digest": digest(*self.seeds.leaves)},
            "version of": versions(),
        }


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Leaves with their paths as names: of attributes, keys and places, joined by dots; "value" for a bare array."""

    def part(entry: Any) -> str:
        return str(next(getattr(entry, field) for field in ("name", "key", "idx") if hasattr(entry, field)))

    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(".".join(map(part, path)) or "value", leaf) for path, leaf in leaves]


def _shapes(program: jax.stages.Compiled) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Name -> shape and dtype of what one run returns."""
    found = {name: (leaf.shape[1:], leaf.dtype) for name, leaf in named_leaves(program.out_info)}
    for name, (_, dtype) in found.items():
        if jnp.issubdtype(dtype, jax.dtypes.extended):
            raise ValueError(f"run must return arrays of numbers, but {name!r} holds {dtype}; return its data instead")
    return found


def _summary(labels: np.ndarray, values: np.ndarray) -> str:
    """An axis in a few words that differ where its values do."""
    exact = digest(labels if values.dtype.kind in "OUS" else values)
    return f"{len(labels)} values from {labels[0]} to {labels[-1]} ({exact})"

"""The programs of a sweep: one batch of runs, compiled for all local devices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damjax._axes import check_fits
from damjax.batching import vmap_last

Device = Any  # jax.Device, which type checkers take for a variable
RUNS = jax.sharding.PartitionSpec("runs")


class Seeds(NamedTuple):
    """What differs from seed to seed, as plain arrays, so that any of it can be picked on the host.

    Attributes:
        leaves: NumPy arrays (S, ...); typed keys as their data.
        kinds: per leaf the implementation of its keys, None for other arrays.
        structure: of the pytree.
    """

    leaves: tuple[np.ndarray, ...]
    kinds: tuple[str | None, ...]
    structure: Any

    def take(self, places: np.ndarray) -> tuple[np.ndarray, ...]:
        """The leaves of these seeds."""
        return tuple(leaf[places] for leaf in self.leaves)

    def restore(self, leaves: Sequence[Any]) -> Any:
        """The user's pytree, typed keys included; traced or not."""
        typed = [
            leaf if kind is None else jax.random.wrap_key_data(leaf, impl=kind)
            for leaf, kind in zip(leaves, self.kinds, strict=True)
        ]
        return jax.tree.unflatten(self.structure, typed)


def as_seeds(keys: Any) -> Seeds:
    """Take typed keys apart; other leaves become NumPy arrays."""
    leaves, structure = jax.tree.flatten(keys)
    typed = [isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    plain = [np.asarray(jax.random.key_data(leaf) if key else leaf) for leaf, key in zip(leaves, typed, strict=True)]
    for leaf in plain:
        check_fits("keys", leaf)
    kinds = [str(jax.random.key_impl(leaf)) if key else None for leaf, key in zip(leaves, typed, strict=True)]
    return Seeds(tuple(plain), tuple(kinds), structure)


class Signature(NamedTuple):
    """All that a program depends on beside the function.

    Attributes:
        kinds: of the seeds' leaves.
        structure: of the seeds.
        seeds: shape and dtype of every leaf, for one run.
        settings: name, shape and dtype of every traced setting, for one run.
        static: name and value of every static setting.
    """

    kinds: tuple[str | None, ...]
    structure: Any
    seeds: tuple[tuple[tuple[int, ...], str], ...]
    settings: tuple[tuple[str, tuple[int, ...], str], ...]
    static: tuple[tuple[str, Any], ...]

    def one(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """The function of one run, of plain arrays: leaves of its seed and traced settings."""
        seeds = Seeds((), self.kinds, self.structure)
        return lambda leaves, settings: _numbers(run(seeds.restore(leaves), **settings, **dict(self.static)))

    def examples(self, *leading: int, sharding: Any = None) -> tuple[Any, Any]:
        """Arguments as shapes and dtypes, with ``leading`` axes."""

        def example(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*leading, *shape), np.dtype(dtype), sharding=sharding)

        return tuple(example(*leaf) for leaf in self.seeds), {
            name: example(shape, dtype) for name, shape, dtype in self.settings
        }


def _numbers(results: Any) -> Any:
    """What ``run`` returned, if it is made of arrays and numbers."""
    for path, leaf in jax.tree.leaves_with_path(results):
        numeric = isinstance(leaf, (bool, int, float, complex, jax.Array))
        if not numeric and not (isinstance(leaf, (np.generic, np.ndarray)) and leaf.dtype.kind not in "OSUMm"):
            place = jax.tree_util.keystr(path) or "its result"
            raise ValueError(
                f"run must return arrays of numbers, but {place} is {leaf!r}; leave it out, or make it an axis of the"
                f" sweep, whose labels are kept"
            )
    return results


def signature(seeds: Seeds, settings: Mapping[str, np.ndarray], static: Mapping[str, Any]) -> Signature:
    """The signature of runs with these seeds and settings; axes that are not part of the program are traced."""

    def of_one(array: np.ndarray) -> tuple[tuple[int, ...], str]:
        return array.shape[1:], str(jax.dtypes.canonicalize_dtype(array.dtype))

    return Signature(
        seeds.kinds,
        seeds.structure,
        tuple(of_one(leaf) for leaf in seeds.leaves),
        tuple((name, *of_one(array)) for name, array in settings.items()),
        tuple(static.items()),
    )


def vectorizer(devices: Sequence[Device]) -> Callable[..., Any]:
    """How runs are mapped when the user does not say: for vector units on a CPU, as usual elsewhere."""
    return vmap_last if devices[0].platform == "cpu" else jax.vmap


def compile_batch(
    one: Callable[..., Any],
    signature: Signature,
    vectorize: Callable[..., Any],
    devices: tuple[Device, ...],
    batch_size: int,
) -> jax.stages.Compiled:
    """The program of one batch on each device.

    Every device computes its batch by itself, all by the same instructions. XLA may order sums differently for another
    number of devices.
    """

    def batch(leaves: Any, settings: Any) -> Any:
        if batch_size == 1:
            # A mapped axis of one is only in the way.
            alone = jax.tree.map(lambda x: x[0], (leaves, settings))
            return jax.tree.map(lambda x: jnp.asarray(x)[None], one(*alone))
        return vectorize(one)(leaves, settings)

    mesh = jax.sharding.Mesh(np.array(devices), ("runs",))
    program = jax.jit(jax.shard_map(batch, mesh=mesh, in_specs=RUNS, out_specs=RUNS, check_vma=False))
    sharding = jax.sharding.NamedSharding(mesh, RUNS)
    return program.lower(*signature.examples(len(devices) * batch_size, sharding=sharding)).compile()

"""The programs of a sweep: one run as a function of arrays, one batch compiled for all local devices, and its size."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damjax.sweeps.axes import Seeds
from damjax.sweeps.contents import digest
from damjax.vmapping import vmap_last

__all__ = [
    "RECENT",
    "Program",
    "RecentPrograms",
    "Signature",
    "compile_batch",
    "fit_batch_size",
    "free_bytes",
    "make_program",
    "named_leaves",
    "plain",
    "results_of",
    "signature",
    "vectorizer",
]

Device = Any  # jax.Device, which type checkers take for a variable
RUNS = jax.sharding.PartitionSpec("runs")
MAX_RECENT = 32


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

    def examples(self, *leading: int, sharding: Any = None) -> tuple[Any, Any]:
        """Arguments as shapes and dtypes, with ``leading`` axes."""

        def example(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*leading, *shape), np.dtype(dtype), sharding=sharding)

        return tuple(example(*leaf) for leaf in self.seeds), {
            name: example(shape, dtype) for name, shape, dtype in self.settings
        }


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


class Program(NamedTuple):
    """What one run computes.

    Attributes:
        run: of plain arrays: the leaves of its seed, and its traced settings.
        signature: of its arguments.
        digest: of its text; it tells apart functions whose source is the same but whose surroundings are not.
        calls_back: into Python, which no text shows: "" nowhere, "effects" for no results (``jax.debug.print``),
            "results" where they depend on it (``jax.pure_callback``).
    """

    run: Callable[..., Any]
    signature: Signature
    digest: str
    calls_back: str


def make_program(run: Callable[..., Any], signature: Signature) -> Program:
    """What the user's function computes in one run, traced once; its text holds the constants it closes over.

    Raises:
        ValueError: a program whose random bits would depend on the runs beside it.
    """
    seeds, static = Seeds((), signature.kinds, signature.structure), dict(signature.static)

    def one(leaves: Sequence[Any], settings: Mapping[str, Any]) -> Any:
        return _numbers(run(seeds.restore(leaves), **settings, **static))

    text = jax.jit(one).lower(*signature.examples()).as_text()
    if "rng_bit_generator" in text:
        raise ValueError(
            "run must draw its random bits by keys of the kind 'threefry2x32' (jax.random.key(seed)), but it draws some"
            " by 'rbg' or 'unsafe_rbg': mapped, those depend on the batch, so that no run would be that of its key"
        )
    calls = re.findall(r"custom_call @\w*callback\w*\(.*-> (.*)", text)
    calls_back = "results" if any(result != "()" for result in calls) else "effects" if calls else ""
    return Program(one, signature, digest(text), calls_back)


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


def vectorizer(devices: Sequence[Device]) -> Callable[..., Any]:
    """How runs are mapped when the user does not say: for vector units on a CPU, as usual elsewhere."""
    return vmap_last if devices[0].platform == "cpu" else jax.vmap


def compile_batch(
    program: Program, vectorize: Callable[..., Any], devices: tuple[Device, ...], size: int
) -> jax.stages.Compiled:
    """The program of one batch of ``size`` runs on each device.

    Every device computes its batch by itself, all by the same instructions. XLA may order sums differently for another
    number of devices.
    """

    def batch(leaves: Any, settings: Any) -> Any:
        if size == 1:
            # A mapped axis of one is only in the way.
            alone = jax.tree.map(lambda x: x[0], (leaves, settings))
            return jax.tree.map(lambda x: jnp.asarray(x)[None], program.run(*alone))
        return vectorize(program.run)(leaves, settings)

    mesh = jax.sharding.Mesh(np.array(devices), ("runs",))
    on_all = jax.jit(jax.shard_map(batch, mesh=mesh, in_specs=RUNS, out_specs=RUNS, check_vma=False))
    sharding = jax.sharding.NamedSharding(mesh, RUNS)
    return on_all.lower(*program.signature.examples(len(devices) * size, sharding=sharding)).compile()


class RecentPrograms:
    """The compiled programs that were used last, so that the next sweep of the same compiles nothing.

    There is one for the whole process, as there is one of each of jax's own caches. It holds programs, and not the
    functions that they were made of, which may hold large arrays.
    """

    def __init__(self, most: int):
        self.most = most
        self._programs: dict[Any, jax.stages.Compiled] = {}

    def get(self, recipe: Any, compile_it: Callable[[], jax.stages.Compiled]) -> jax.stages.Compiled:
        """The program of a recipe, which says all that it depends on; compiled if it is not among the last ones."""
        program = self._programs.pop(recipe, None)
        if program is None:
            program = compile_it()
        # A dict keeps the order in which its entries came: the last one is the newest.
        self._programs[recipe] = program
        while len(self._programs) > self.most:
            del self._programs[next(iter(self._programs))]
        return program


RECENT = RecentPrograms(MAX_RECENT)


def results_of(compiled: jax.stages.Compiled) -> dict[str, jax.ShapeDtypeStruct]:
    """Name -> shape and dtype of what one run returns.

    Raises:
        ValueError: typed keys, or two results of one name.
    """
    leaves = named_leaves(compiled.out_info)
    for name, leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise ValueError(
                f"run must return arrays of numbers, but {name!r} holds {leaf.dtype}; return its data instead"
            )
    results = {name: jax.ShapeDtypeStruct(leaf.shape[1:], plain(leaf.dtype)) for name, leaf in leaves}
    if len(results) < len(leaves):
        names = [name for name, _ in leaves]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"run must return arrays under different names, but {twice} come twice; rename one")
    return results


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Leaves with their paths as names: of attributes, keys and places, joined by dots; "value" for a bare array."""

    def part(entry: Any) -> str:
        return str(next(getattr(entry, field) for field in ("name", "key", "idx") if hasattr(entry, field)))

    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(".".join(map(part, path)) or "value", leaf) for path, leaf in leaves]


def plain(dtype: Any) -> np.dtype:
    """A dtype that NumPy, xarray and zarr have: bfloat16 and its like become float32, small integers int8."""
    if np.dtype(dtype).kind != "V":
        return np.dtype(dtype)
    return np.dtype(np.float32 if jnp.issubdtype(dtype, jnp.floating) else np.int8)


def fit_batch_size(compile_for: Callable[[int], Sequence[jax.stages.Compiled]], largest: int, memory: int) -> int:
    """The largest batch, up to ``largest``, whose programs need at most ``memory`` bytes per device.

    Found by compiling: the largest first, then one run, then what lies between by proportion.

    Raises:
        ValueError: not even one run fits.

    Example:
        >>> import jax.numpy as jnp
        >>> compile_for = lambda size: [jax.jit(lambda x: x + 1).lower(jnp.zeros((size, 1024))).compile()]
        >>> fit_batch_size(compile_for, 64, 10 * 8 * 1024)  # 4 KiB in and 4 KiB out for each run
        10
    """
    size, needed = largest, _needed_by(compile_for(largest))
    if needed <= memory:
        return size
    alone = _needed_by(compile_for(1))
    if alone > memory:
        raise ValueError(
            f"memory is {_shown(memory)} per device, but one run needs {_shown(alone)}; give more, use fewer devices,"
            f" or return less from run (observe numbers instead of memories)"
        )
    while needed > memory and size > 1:
        # What all runs share, and what each adds.
        size = max(1, min(size - 1, 1 + (size - 1) * (memory - alone) // (needed - alone)))
        needed = _needed_by(compile_for(size)) if size > 1 else alone
    return size


def _needed_by(programs: Sequence[jax.stages.Compiled]) -> int:
    """Bytes per device of the largest of these programs."""
    return max(bytes_per_device(program) for program in programs)


def bytes_per_device(compiled: jax.stages.Compiled) -> int:
    """What XLA says that one call of the program needs on each device; 0 where it does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


def free_bytes(devices: Sequence[Device]) -> int:
    """Memory that is free for each of these devices."""
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return min(stat["bytes_limit"] - stat["bytes_in_use"] for stat in stats if stat)
    return _free_host_bytes() // len(devices)


def _free_host_bytes() -> int:
    """Free memory of the machine, or of this process's control group (SLURM, a container) where that is less."""
    free = _read(Path("/proc/meminfo"), r"MemAvailable:\s+(\d+) kB")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if free is None else 1024 * free
    root, group = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
    own = re.search(r"^0::/(.*)$", group.read_text(), re.MULTILINE) if group.exists() else None
    folder = root / (own[1] if own else "")
    for place in (folder, *folder.parents):
        limit, used = _read(place / "memory.max", r"(\d+)"), _read(place / "memory.current", r"(\d+)")
        if limit is not None and used is not None:
            # Files that were read count as used, until somebody needs their memory.
            cached = _read(place / "memory.stat", r"^inactive_file (\d+)") or 0
            free = min(free, limit - used + cached)
    return free


def _read(path: Path, pattern: str) -> int | None:
    """The number that the pattern matches in a file; None where there is none (no limit is "max"), or no file."""
    match = re.search(pattern, path.read_text(), re.MULTILINE) if path.is_file() else None
    return int(match[1]) if match else None


def _shown(size: int) -> str:
    """A number of bytes for people.

    Example:
        >>> _shown(10), _shown(12_345), _shown(3 * 2**30)
        ('10 bytes', '12.1 KiB', '3.0 GiB')
    """
    unit = min((max(size, 1).bit_length() - 1) // 10, 4)
    return f"{size} bytes" if unit == 0 else f"{size / 2 ** (10 * unit):.1f} {'KMGT'[unit - 1]}iB"

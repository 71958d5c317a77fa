"""What a sweep computes, and where: from batches of its plan to results by name."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from damjax._checks import check_count
from damjax._version import __version__
from damjax.sweeps.axes import Seeds, as_seeds
from damjax.sweeps.contents import Contents, Coordinates, Description, contents_of
from damjax.sweeps.plan import RESERVED, SEED, Batch, Plan, Table, make_plan, own_dims
from damjax.sweeps.programs import (
    RECENT,
    Device,
    Program,
    compile_batch,
    fit_batch_size,
    free_bytes,
    make_program,
    named_leaves,
    plain,
    results_of,
    signature,
    vectorizer,
)
from damjax.sweeps.store import StoreError

__all__ = ["Job"]

Run = Callable[..., Any]

# A batch that stays in a core's cache is faster than a large one; accelerators want more at once.
LARGEST_BATCH = {"cpu": 64}
LARGEST_BATCH_ELSEWHERE = 4096
SHARE_OF_FREE_MEMORY = 0.5


class Job:
    """What a sweep computes, and where. It compiles each of its programs once, and owns them.

    Attributes:
        plan: the runs.
        seeds: the keys, taken apart.
        devices: of this process.
        vectorize: how runs are mapped.
        name: of the user's function.
        dims: names that the user gave to the own axes of results.
        programs: per group of the plan, what one of its runs computes.
    """

    def __init__(
        self,
        run: Run,
        keys: Any,
        axes: Mapping[str, Any],
        *,
        zipped: Sequence[Sequence[str]] = (),
        static: Sequence[str] = (),
        devices: Sequence[Device] | None = None,
        vectorize: Callable[..., Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
    ):
        """Check what the user passed, lay out the runs and trace one of every program; nothing is compiled yet.

        Args:
            run: as for ``damjax.sweep``, and so are the others.
            keys: one per seed.
            axes: name -> values.
            zipped: groups of axes that go together.
            static: axes that are part of the program.
            devices: by default all of this process.
            vectorize: by default what suits the devices.
            dims: result -> names of its own axes.

        Raises:
            ValueError: arguments that do not fit, or to each other.
        """
        self.devices: tuple[Device, ...] = _checked_devices(devices)
        if vectorize is not None and not callable(vectorize):
            raise ValueError(f"vectorize must be a function such as jax.vmap, but it is {vectorize!r}")
        self.vectorize: Callable[..., Any] = vectorizer(self.devices) if vectorize is None else vectorize
        self.plan: Plan = make_plan(keys, axes, zipped=zipped, static=static)
        self.seeds: Seeds = as_seeds(keys)
        _check_call(run, self.plan)
        self.name: str = getattr(run, "__qualname__", type(run).__name__)
        self.dims: dict[str, tuple[str, ...]] = _named_axes(dims)
        self.programs: tuple[Program, ...] = tuple(
            make_program(run, signature(self.seeds, self.plan.settings(group.runs[:1]), group.static))
            for group in self.plan.groups
        )
        self._compiled: dict[Any, jax.stages.Compiled] = {}

    def compiled(self, group: int, size: int) -> jax.stages.Compiled:
        """The program of a group's batches, compiled once; sweeps that compute the same share it."""
        program = self.programs[group]
        compile_it = functools.partial(compile_batch, program, self.vectorize, self.devices, size)
        # Of the signature, what the digest leaves out: how the arguments are called.
        what = group if program.calls_back else (program.digest, program.signature._replace(static=()))
        recipe = (what, self.vectorize, self.devices, size)
        if recipe not in self._compiled:
            self._compiled[recipe] = compile_it() if program.calls_back else RECENT.get(recipe, compile_it)
        return self._compiled[recipe]

    def compile(self, size: int) -> list[jax.stages.Compiled]:
        """The programs of all groups; their results must be alike.

        Raises:
            ValueError: results that are not, that are none, or whose names clash.
        """
        programs = [self.compiled(group, size) for group in range(len(self.plan.groups))]
        first = self.results(size)
        if not first:
            raise ValueError("run must return at least one array, but it returns nothing")
        self._check_names({name: result.shape for name, result in first.items()})
        for group, program in zip(self.plan.groups, programs, strict=True):
            if (results := results_of(program)) != first:
                raise ValueError(
                    f"run must return the same names, shapes and dtypes at every setting, but at {group.static} it"
                    f" returns {_shown(results)}, and at {self.plan.groups[0].static} {_shown(first)}"
                )
        return programs

    def fit(self, batch_size: int | None, memory: int | None) -> int:
        """The number of runs per batch, for which all is compiled.

        Args:
            batch_size: at most so many, whatever they need.
            memory: at most so many bytes on each device; by default half of what is free.

        Returns:
            The size of a block of the plan.
        """
        if batch_size is not None:
            check_count("batch_size", batch_size)
            size = self.table(batch_size).size
            self.compile(size)
            return size
        if memory is None:
            memory = int(SHARE_OF_FREE_MEMORY * free_bytes(self.devices))
        else:
            check_count("memory", memory)
        largest = self.table(LARGEST_BATCH.get(self.devices[0].platform, LARGEST_BATCH_ELSEWHERE)).size
        return self.table(fit_batch_size(self.compile, largest, memory)).size

    def table(self, most: int) -> Table:
        """The plan's, in blocks of at most so many runs, for these devices."""
        return self.plan.table(most, len(self.devices))

    def results(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Name -> shape and dtype of what one run returns."""
        return results_of(self.compiled(0, size))

    def start(self, batches: Sequence[Batch]) -> Any:
        """Set the devices to work on batches of one group, one each; the arrays that will hold the results."""
        program = self.compiled(batches[0].group, len(batches[0].runs))
        # Every device needs something to do: those that are left over repeat the last batch.
        padded = [*batches, *[batches[-1]] * (len(self.devices) - len(batches))]
        runs = np.concatenate([batch.runs for batch in padded])
        return program(self.seeds.take(runs % self.plan.shape[-1]), self.plan.settings(runs))

    def finish(self, started: Any) -> list[dict[str, np.ndarray]]:
        """Wait for the results, name -> (batch_size, ...), of every device."""
        size = jax.tree.leaves(started)[0].shape[0] // len(self.devices)
        try:
            arrays = {name: np.asarray(leaf, plain(leaf.dtype)) for name, leaf in named_leaves(started)}
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

    def own_dims(self, name: str, ndim: int) -> tuple[str, ...]:
        """What the own axes of a result are called."""
        return self.dims.get(name, own_dims(name, ndim))

    def coordinates(self) -> Coordinates:
        """The labels of all runs."""
        return {**self.plan.coordinates(), SEED: (SEED, np.arange(self.plan.shape[-1]))}

    @functools.cached_property
    def contents(self) -> Contents:
        """The runs, as what can be kept in a store."""
        return contents_of(self.plan, self.seeds, [program.digest for program in self.programs])

    def identity(self) -> dict[str, Any]:
        """What tells this sweep from others: the programs of one run, its settings and seeds, and the versions.

        Raises:
            StoreError: a program whose results depend on what it can't be told by.
        """
        if any(program.calls_back == "results" for program in self.programs):
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

    def description(self, size: int, batch_size: int | None = None) -> Description:
        """What a store says of itself that holds this sweep alone, in blocks of ``size`` runs."""
        results = {
            name: (str(result.dtype), result.shape, self.own_dims(name, len(result.shape)))
            for name, result in self.results(size).items()
        }
        passed = size if batch_size is None else batch_size
        return Description(self.identity(), self.contents, self.table(size).block, passed, results)

    def _check_names(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise for names of results, or of their axes, that clash."""
        if unknown := set(self.dims) - set(shapes):
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


def versions() -> dict[str, str]:
    """The packages on which the last digits depend."""
    return {"damjax": __version__} | {package: version(package) for package in ("jax", "jaxlib")}


def _checked_devices(devices: Sequence[Device] | None) -> tuple[Device, ...]:
    """All devices of this process where the user names none."""
    listed = jax.local_devices() if devices is None else devices
    used = tuple(listed) if isinstance(listed, Iterable) else ()
    if not used or not all(isinstance(device, jax.Device) for device in used):
        raise ValueError(f"devices must hold at least one device of jax, but it is {devices!r}; see jax.devices()")
    return used


def _check_call(run: Run, plan: Plan) -> None:
    """Raise unless ``run`` takes a key and every axis by name."""
    if not callable(run):
        raise ValueError(f"run must be a function of a key and settings, but it is {run!r}")
    try:
        inspect.signature(run).bind(None, **plan.axes)
    except TypeError as error:
        raise ValueError(
            f"run must take a key and then every axis by name, but {error}; the axes are {list(plan.axes)} (what sweep"
            f" itself takes, such as memory and store, can't be the name of one)"
        ) from None


def _named_axes(dims: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    """The names of results' own axes; a single one need not be put into a tuple."""
    if dims is not None and not isinstance(dims, Mapping):
        raise ValueError(f"dims must map results to names of their axes, as {{'regret': ('horizon',)}}, not {dims!r}")
    return {name: (own,) if isinstance(own, str) else tuple(own) for name, own in (dims or {}).items()}


def _kind(values: np.ndarray, static: bool) -> str:
    """What the values of an axis have in common."""
    return "static" if static else f"{values.dtype}{list(values.shape[1:])}"


def _shown(results: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, str]:
    """Results in words."""
    return {name: f"{result.dtype}{list(result.shape)}" for name, result in results.items()}

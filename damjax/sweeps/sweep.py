"""Sweeps: one pure function of a key, over settings and seeds, on all devices and hosts, without losing a run.

    job -> batches on devices -> store -> labelled results

``sweep`` makes a ``Job``, which lays the runs out (``plan``), traces one of them, and compiles the program of a batch
of the size that fits in memory (``programs``). ``compute`` computes batch after batch and adds each to the store
(``store``), if there is one; ``label`` gives the results their coordinates. What a run returns depends on its key and
its settings; its last digits, besides, on the program: the size of the batches and the number of devices. Hosts,
neighbours in a batch and interruptions leave no trace.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from damjax._checks import check_count
from damjax.sweeps.compute import Gathered, bar_of, compute
from damjax.sweeps.job import Job
from damjax.sweeps.plan import SEED
from damjax.sweeps.programs import Device
from damjax.sweeps.store import Store, StoreError, check_same, create, extend, find

__all__ = ["open_sweep", "rerun", "sweep", "use_every_core"]

Run = Callable[..., Any]


def sweep(
    run: Run,
    *,
    keys: Any,
    zipped: Sequence[Sequence[str]] = (),
    static: Sequence[str] = (),
    batch_size: int | None = None,
    memory: int | None = None,
    devices: Sequence[Device] | None = None,
    vectorize: Callable[..., Any] | None = None,
    store: str | Path | None = None,
    part: tuple[int, int] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    progress: bool | str = True,
    **axes: Any,
) -> Any:
    """Run a function at every setting and for every seed.

    Args:
        run: pure, ``run(key, **settings) -> pytree of arrays``, of the same shapes at every setting. It is mapped over
            runs, so settings are traced scalars (or arrays, where an axis has more dimensions than one). It is traced
            anew in every call, and compiled only if what it computes has changed; from one process to the next, set
            ``jax_compilation_cache_dir`` and jax keeps what it has compiled.
        keys: one typed key per seed, (S,); every setting sees the same ones. Or a pytree of arrays with a leading S,
            for what differs from seed to seed beside the key, such as tables of delays; ``run`` gets its slice.
        zipped: groups of axes that go together, such as [("rho", "rate")]; all others are crossed.
        static: axes whose values are Python numbers of the program (a size, a count), one compilation for each; names
            and other objects are so by themselves.
        batch_size: how many runs at most are mapped together on one device, all seeds of several settings or some seeds
            of one; by default 64 on a CPU, 4096 elsewhere, fewer where that makes equal batches, and no more than fit
            in ``memory``.
        memory: bytes that one batch may take on a device, where no batch_size says more; by default half of what is
            free.
        devices: by default ``jax.local_devices()``.
        vectorize: how runs are mapped, as ``jax.vmap``; by default ``damjax.vmap_last`` on a CPU.
        store: folder of a zarr store (extra ``sweeps``): finished batches are kept there, and a call with the same
            arguments goes on where the last one stopped, whatever stopped it. With more seeds, or other values of the
            axes, it computes what the store lacks. ``open_sweep`` reads it, and so does ``xarray.open_zarr``, also
            while the sweep runs. Any number of processes may use it at once.
        part: (i, n), for n processes that share the work and the ``store``, and need not meet: process i, from 0 on,
            computes every n-th batch, and returns what the store holds by then. Others' runs that it lacks have NaN,
            or 0 for integers, and are not ``finite``. Once all parts are done, the same call, with or without
            ``part``, returns the whole and computes nothing; without ``part`` it also computes what a part that failed
            has left. All take the batch size of whoever made the store. Under ``jax.distributed`` with several
            processes each has its part by itself, waits for the others' as long as it needed for its own, then
            computes what is still missing, and returns the whole.
        dims: result -> names of its own axes, such as {"regret": ("horizon",)}; by default its name and a number.
        progress: whether to show a bar, or its title.
        **axes: name -> values, one axis of the sweep each: arrays, lists of numbers, of names, or of other objects.

    Returns:
        An xarray.Dataset with a variable per array of ``run``'s result, named by its path ("value" for a bare array),
        over the axes in the order in which they came, then "seed", then the array's own axes; with ``finite``, whether
        all numbers of a run are. Its ``.sweep`` methods are statistics over the seeds, such as ``.sweep.mean()``.
        Without xarray (extra ``sweeps``) a dict of NumPy arrays of the same names and shapes, coordinates included.

    Raises:
        ValueError: axes or keys that do not fit; keys of the kind "rbg" or "unsafe_rbg", whose draws depend on the
            batch; not even one run fits in memory; several processes without a store.
        StoreError: the store holds something else, or runs of another program or by other keys, or is damaged; a
            ``run`` that calls back into Python for its results, which no store can tell from another one; a ValueError
            too.
        OSError: the store cannot be written to; what was finished is kept.
        KeyboardInterrupt: it was stopped; the message says how much is kept, and where.

    Warns:
        RuntimeWarning: runs with NaN or infinite numbers; they are marked in ``finite`` and spoil no other run. Runs of
            other parts that are not there yet. A store with damaged files, whose batches are computed again.

    Example:
        >>> def run(key, rho, rate):
        ...     return {"loss": rho * rate + jax.random.normal(key)}
        >>> losses = sweep(run, keys=jax.random.split(jax.random.key(0), 4), rho=[0.0, 0.5], rate=[1.0, 2.0, 3.0],
        ...     progress=False)
        >>> losses["loss"].shape, bool(losses["finite"].all())
        ((2, 3, 4), True)
    """
    if not isinstance(progress, bool | str):
        raise ValueError(f"progress must be True, False or a title, but it is {progress!r}")
    whole, part = part is None, _checked_part(part, store)
    job = Job(run, keys, axes, zipped=zipped, static=static, devices=devices, vectorize=vectorize, dims=dims)
    # Before the bar of runs: large programs take a minute.
    with bar_of(progress, ": compiling", bar_format="{desc}", leave=False):
        if store is None:
            opened, table = None, job.table(job.fit(batch_size, memory))
        else:
            opened = _store_for(job, _folder(store), batch_size, memory)
            table = opened.table(job.contents)
    return _labelled(compute(job, table, opened, progress, part=part, whole=whole), job, table.size, store)


def rerun(
    run: Run,
    *,
    at: Mapping[str, Any],
    batch_size: int,
    keys: Any,
    zipped: Sequence[Sequence[str]] = (),
    static: Sequence[str] = (),
    devices: Sequence[Device] | None = None,
    vectorize: Callable[..., Any] | None = None,
    **axes: Any,
) -> Any:
    """One run of a sweep again, alone, bit for bit.

    The last digits of a run depend on the program, which maps ``batch_size`` runs together on each device; so this
    computes batches of the one run only, in its own place, by the same program. (Where a store was extended by values
    that do not come last, places are others, and the last digits may be.)

    Args:
        run: as for ``sweep``.
        at: the coordinates of the run: "seed" and every axis (of those that are zipped, one is enough), up to the
            rounding of a number.
        batch_size: of the sweep, ``int(results["batch_size"])``.
        keys: as for ``sweep``.
        zipped: as for ``sweep``.
        static: as for ``sweep``.
        devices: as for ``sweep``; another kind or number of devices may round differently.
        vectorize: as for ``sweep``.
        **axes: as for ``sweep``.

    Returns:
        What ``run`` returned.

    Raises:
        ValueError: coordinates that are missing, unknown, or not in the sweep.

    Example:
        >>> run = lambda key, rho: rho + jax.random.normal(key)
        >>> arguments = {"keys": jax.random.split(jax.random.key(0), 4), "rho": [0.0, 0.5]}
        >>> results = sweep(run, **arguments, progress=False)
        >>> again = rerun(run, at={"rho": 0.5, "seed": 2}, batch_size=int(results["batch_size"]), **arguments)
        >>> bool(again == np.asarray(results["value"])[1, 2])
        True
    """
    check_count("batch_size", batch_size)
    job = Job(run, keys, axes, zipped=zipped, static=static, devices=devices, vectorize=vectorize)
    number = job.plan.find(at)
    batch = next(batch for batch in job.plan.batches(job.table(batch_size)) if number in batch.runs)
    lane = batch.runs.tolist().index(number)
    alone = job.start([batch._replace(runs=np.full_like(batch.runs, number))])
    return jax.tree.map(lambda x: np.asarray(x[lane]), alone)


def open_sweep(store: str | Path) -> Any:
    """What the store of a sweep holds, without its function, and by whatever versions it was made.

    Args:
        store: its folder.

    Returns:
        An xarray.Dataset as ``sweep`` returns it. In every run that is not there yet, ``finite`` is False and numbers
        are NaN, integers 0.

    Raises:
        StoreError: there is no store, or it is damaged.
        ImportError: the extra ``sweeps`` is not installed.

    Warns:
        RuntimeWarning: runs that are not there yet, or whose files are damaged.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> results = sweep(lambda key, rho: 2 * rho, keys=np.arange(2), rho=[0.0, 0.5], store=folder, progress=False)
        >>> open_sweep(folder).identical(results)
        True
    """
    opened = find(_folder(store))
    if opened is None:
        raise StoreError(f"store must be a folder that a sweep has made, but {store} is empty or not there")
    from damjax.sweeps.labelled import label

    arrays, done = opened.everything()
    _warn_of_missing(done, store)
    made_by = opened.made_by
    own = {name: dims for name, (_, _, dims) in made_by.results.items()}
    arrays["finite"] = done & _finite(arrays, done.shape)
    return label(arrays, opened.coordinates(), (*made_by.contents.values, SEED), opened.size, own)


def use_every_core() -> None:
    """Make every core of a CPU a device, among which ``sweep`` divides its batches; a GPU is used as ever.

    Call it before anything is computed. It sets ``jax_num_cpu_devices``, and gives jax's pool of threads, whose size
    jax takes from the environment variable NPROC, more threads than there are devices: a device that computes
    eigenvalues holds one while it waits for another, and with as many devices as threads all might wait for ever.

    Raises:
        RuntimeError: jax has started already.

    Example:
        >>> use_every_core()  # doctest: +SKIP
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)
    os.environ.setdefault("NPROC", str(4 * cores))


def _checked_part(part: tuple[int, int] | None, store: str | Path | None) -> tuple[int, int]:
    """This process's place among those that share the work, and how many they are."""
    if part is None:
        part = jax.process_index(), jax.process_count()
        if store is None and part[1] > 1:
            raise ValueError(
                f"store must be a folder on a disk that all {part[1]} processes of jax.distributed share, since they"
                f" exchange their results there, but it is None"
            )
        return part
    numbers = isinstance(part, tuple) and len(part) == 2 and all(isinstance(x, (int, np.integer)) for x in part)
    if not numbers or not 0 <= part[0] < part[1]:
        raise ValueError(
            f"part must be (i, n) with 0 <= i < n, for process i of n, but it is {part!r}; an axis of that name must be"
            f" called otherwise"
        )
    if store is None:
        raise ValueError(
            f"store must be a folder that the {part[1]} parts share, but it is None; without one, nobody would ever"
            f" see more than a part"
        )
    return part


def _store_for(job: Job, path: Path, batch_size: int | None, memory: int | None) -> Store:
    """The store at ``path``, made or extended if need be, with room for all runs; the job is compiled for its batches.

    Raises:
        StoreError: it belongs to another sweep, is damaged, or is none.
    """
    identity, opened = job.identity(), find(path)
    if opened is None:
        size = job.fit(batch_size, memory)
        opened = create(path, job.description(size, batch_size), job.coordinates())
    # Also of a store that another process has made meanwhile.
    check_same(opened, identity, job.contents, batch_size)
    job.compile(opened.size)
    return extend(opened, job.description(opened.size), job.coordinates())


def _folder(store: str | Path) -> Path:
    if not isinstance(store, str | Path):
        raise ValueError(f"store must be a folder, but it is {store!r}; an axis of that name must be called otherwise")
    if "://" in str(store):
        raise StoreError(f"store must be a folder of this machine or of a disk that it shares, but it is {store}")
    return Path(store).expanduser().absolute()


def _labelled(gathered: Gathered, job: Job, batch_size: int, store: str | Path | None) -> Any:
    """Results in the shape of the sweep, with coordinates and marks."""
    plan, done = job.plan, gathered.done
    finite = _finite(gathered.results, done.shape)
    _warn_of_missing(done, store, stacklevel=4)
    if (failed := np.flatnonzero(done & ~finite)).size:
        warnings.warn(
            f"{len(failed)} of {plan.num_runs} runs gave NaN or infinity, the first at"
            f" {plan.describe(int(failed[0]))}; see 'finite' in the result",
            RuntimeWarning,
            stacklevel=3,
        )
    arrays = {name: values.reshape(*plan.shape, *values.shape[1:]) for name, values in gathered.results.items()}
    arrays["finite"] = (done & finite).reshape(plan.shape)
    coordinates = job.coordinates()
    try:
        from damjax.sweeps.labelled import label
    except ImportError:
        labels = {axis: labels for axis, (_, labels) in coordinates.items()}
        return arrays | labels | {"batch_size": np.asarray(batch_size)}
    return label(arrays, coordinates, (*plan.dims, SEED), batch_size, job.dims)


def _warn_of_missing(done: np.ndarray, store: str | Path | None, *, stacklevel: int = 3) -> None:
    """Warn of runs that are not there yet; ``stacklevel`` leads to the user's call."""
    if not done.all():
        missing = f"{np.sum(~done)} of the {done.size} runs of {store} are not there yet; see 'finite' in the result"
        warnings.warn(missing, RuntimeWarning, stacklevel=stacklevel)


def _finite(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """In which runs, (shape..), all numbers are finite."""
    finite = np.ones(shape, bool)
    for values in arrays.values():
        if values.dtype.kind in "fc":
            finite &= np.isfinite(values).reshape(*shape, -1).all(axis=-1)
    return finite

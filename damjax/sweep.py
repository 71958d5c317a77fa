"""Sweeps: one pure function of a key, over settings and seeds, on all devices and hosts, without losing a run.

    plan -> program of a batch -> batches on devices and hosts -> store -> labelled results

``sweep`` lays the runs out (``_plan``), compiles one batch for the local devices (``_work``, ``_programs``) and sizes
it to the memory that is free (``_memory``). When all hosts have one size and a store (``_agreement``), it computes
batch after batch (``_compute``), adds each to the store (``_store``), and exchanges what the hosts have computed
(``_hosts``). What a run returns depends on its key and its settings; its last digits, besides, on the program: the size
of the batches and the number of devices. Hosts, neighbours in a batch and interruptions leave no trace.
"""

import inspect
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from damjax._agreement import table_and_store
from damjax._checks import check_count
from damjax._compute import bar_of, compute
from damjax._plan import SEED, Plan, make_plan
from damjax._programs import Device, as_seeds, signature, vectorizer
from damjax._store import StoreError, find
from damjax._work import Work, fingerprint

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
            while the sweep runs.
        dims: result -> names of its own axes, such as {"regret": ("horizon",)}; by default its name and a number.
        progress: whether to show a bar, or its title.
        **axes: name -> values, one axis of the sweep each: arrays, lists of numbers, of names, or of other objects.

    Returns:
        An xarray.Dataset with a variable per array of ``run``'s result, named by its path ("value" for a bare array),
        over the axes in the order given, then "seed", then the array's own axes; with ``finite``, whether all numbers
        of a run are. Its ``.sweep`` methods are those of ``damjax.labelled``. Without xarray (extra ``sweeps``) a dict
        of NumPy arrays of the same names and shapes, coordinates included.

    Raises:
        ValueError: axes or keys that do not fit; keys of the kind "rbg" or "unsafe_rbg", whose draws depend on the
            batch; not even one run fits in memory.
        StoreError: the store holds something else, or runs of another program or by other keys, or is damaged; a
            ``run`` that calls back into Python for its results, which no store can tell from another one; a ValueError
            too.
        OSError: the store cannot be written to; what was finished is kept.
        KeyboardInterrupt: it was stopped; the message says how much is kept, and where.

    Warns:
        RuntimeWarning: runs with NaN or infinite numbers; they are marked in ``finite`` and spoil no other run.

    Example:
        >>> def run(key, rho, rate):
        ...     return {"loss": rho * rate + jax.random.normal(key)}
        >>> found = sweep(run, keys=jax.random.split(jax.random.key(0), 4), rho=[0.0, 0.5], rate=[1.0, 2.0, 3.0],
        ...     progress=False)
        >>> found["loss"].shape, bool(found["finite"].all())
        ((2, 3, 4), True)
    """
    if not isinstance(progress, bool | str):
        raise ValueError(f"progress must be True, False or a title, but it is {progress!r}")
    work = _work(run, keys, axes, zipped, static, devices, vectorize, dims)
    # Before the bar of runs: large programs take a minute.
    with bar_of(progress, ": compiling", bar_format="{desc}", leave=False):
        table, opened = table_and_store(work, batch_size, memory, None if store is None else _folder(store))
    flat = compute(work, table, opened, progress)
    return _labelled(flat, work, math.prod(table.block))


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
        batch_size: of the sweep, ``int(found["batch_size"])``.
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
        >>> found = sweep(run, **arguments, progress=False)
        >>> again = rerun(run, at={"rho": 0.5, "seed": 2}, batch_size=int(found["batch_size"]), **arguments)
        >>> bool(again == np.asarray(found["value"])[1, 2])
        True
    """
    check_count("batch_size", batch_size)
    work = _work(run, keys, axes, zipped, static, devices, vectorize)
    number = work.plan.find(at)
    table = work.table(batch_size)
    batch = next(batch for batch in work.plan.batches(table) if number in batch.runs)
    lane = batch.runs.tolist().index(number)
    size = len(batch.runs)
    found = work.start([batch._replace(runs=np.full(size, number))], size)
    return jax.tree.map(lambda x: np.asarray(x[lane]), found)


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
        >>> found = sweep(lambda key, rho: 2 * rho, keys=np.arange(2), rho=[0.0, 0.5], store=folder, progress=False)
        >>> open_sweep(folder).identical(found)
        True
    """
    opened = find(_folder(store))
    if opened is None:
        raise StoreError(f"store must be a folder that a sweep has made, but {store} is empty or not there")
    from damjax.labelled import label

    arrays, done = opened.everything()
    if not done.all():
        missing = f"{np.sum(~done)} of the {done.size} runs of {store} are not there yet; see 'finite' in the result"
        warnings.warn(missing, RuntimeWarning, stacklevel=2)
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


def _work(
    run: Run,
    keys: Any,
    axes: Mapping[str, Any],
    zipped: Sequence[Sequence[str]],
    static: Sequence[str],
    devices: Sequence[Device] | None,
    vectorize: Callable[..., Any] | None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Work:
    listed = jax.local_devices() if devices is None else devices
    used = tuple(listed) if isinstance(listed, Iterable) else ()
    if not used or not all(isinstance(device, jax.Device) for device in used):
        raise ValueError(f"devices must hold at least one device of jax, but it is {devices!r}; see jax.devices()")
    if vectorize is not None and not callable(vectorize):
        raise ValueError(f"vectorize must be a function such as jax.vmap, but it is {vectorize!r}")
    plan, seeds = make_plan(keys, axes, zipped=zipped, static=static), as_seeds(keys)
    _check_call(run, plan)
    signatures = tuple(signature(seeds, plan.settings(group.runs[:1]), group.static) for group in plan.groups)
    ones = tuple(of_group.one(run) for of_group in signatures)
    return Work(
        plan=plan,
        seeds=seeds,
        devices=used,
        vectorize=vectorizer(used) if vectorize is None else vectorize,
        name=getattr(run, "__qualname__", type(run).__name__),
        axes_of=_named_axes(dims),
        ones=ones,
        signatures=signatures,
        prints=tuple(fingerprint(*pair) for pair in zip(ones, signatures, strict=True)),
        held={},
    )


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


def _folder(store: str | Path) -> Path:
    if not isinstance(store, str | Path):
        raise ValueError(f"store must be a folder, but it is {store!r}; an axis of that name must be called otherwise")
    if "://" in str(store):
        raise StoreError(f"store must be a folder of this machine or of a disk that it shares, but it is {store}")
    return Path(store).expanduser().absolute()


def _labelled(flat: Mapping[str, np.ndarray], work: Work, size: int) -> Any:
    """Results in the shape of the sweep, with coordinates and marks."""
    plan = work.plan
    finite = _finite(flat, (plan.num_runs,))
    if not finite.all():
        lost = np.flatnonzero(~finite)
        warnings.warn(
            f"{len(lost)} of {plan.num_runs} runs gave NaN or infinity, the first at {plan.describe(int(lost[0]))};"
            f" see 'finite' in the result",
            RuntimeWarning,
            stacklevel=3,
        )
    arrays = {name: values.reshape(*plan.shape, *values.shape[1:]) for name, values in flat.items()}
    arrays["finite"] = finite.reshape(plan.shape)
    coordinates = work.coordinates()
    try:
        from damjax.labelled import label
    except ImportError:
        return arrays | {axis: labels for axis, (_, labels) in coordinates.items()} | {"batch_size": np.asarray(size)}
    return label(arrays, coordinates, (*plan.dims, SEED), size, work.axes_of)


def _finite(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """In which runs, (shape..), all numbers are finite."""
    finite = np.ones(shape, bool)
    for values in arrays.values():
        if values.dtype.kind in "fc":
            finite &= np.isfinite(values).reshape(*shape, -1).all(axis=-1)
    return finite

"""Sweeps: one pure function of a key, over settings and seeds, on all devices and hosts, without losing a run.

    plan -> program of a batch -> batches on devices and hosts -> store -> labelled results

``sweep`` lays the runs out (``_plan``), compiles one batch for the local devices (``_programs``) and sizes it to the
memory that is free (``_memory``), computes batch after batch (``_work``), adds each to a store (``_store``), and
exchanges what several hosts have computed (``_hosts``). What a run returns depends on its key, its settings and the
size of the batches: not on the number of devices or hosts, nor on interruptions.
"""

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from damjax import _hosts, _store
from damjax._plan import SEED, Batch, Plan, make_plan
from damjax._programs import Device, as_seeds, vectorizer
from damjax._store import Store
from damjax._work import Work

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
    progress: bool | str = True,
    **axes: Any,
) -> Any:
    """Run a function at every setting and for every seed.

    Args:
        run: pure, ``run(key, **settings) -> pytree of arrays``, of the same shapes at every setting. It is mapped over
            runs, so settings are traced scalars (or arrays, where an axis has more dimensions than one).
        keys: one typed key per seed, (S,); every setting sees the same ones. Or a pytree of arrays with a leading S,
            for what differs from seed to seed beside the key, such as tables of delays; ``run`` gets its slice.
        zipped: groups of axes that go together, such as [("rho", "rate")]; all others are crossed.
        static: axes whose values are Python numbers of the program (a size, a count), one compilation for each; names
            and other objects are so by themselves.
        batch_size: runs that are mapped together on one device; by default at most 64 on a CPU, 4096 elsewhere, fewer
            where that makes equal batches, and no more than fit in ``memory``.
        memory: bytes that one batch may take on a device; by default half of what is free.
        devices: by default ``jax.local_devices()``.
        vectorize: how runs are mapped, as ``jax.vmap``; by default ``damjax.vmap_last`` on a CPU.
        store: folder of a zarr store (extra ``sweeps``): finished batches are kept there, and a call with the same
            arguments goes on where the last one stopped, whatever stopped it.
        progress: whether to show a bar, or its title.
        **axes: name -> values, one axis of the sweep each; arrays and lists of numbers, or of names.

    Returns:
        An xarray.Dataset with a variable per array of ``run``'s result, named by its path ("value" for a bare array),
        over the axes in the order given, then "seed", then the array's own axes; with ``finite``, whether all numbers
        of a run are. Its ``.sweep`` methods are those of ``damjax.labelled``. Without xarray (extra ``sweeps``) a dict
        of NumPy arrays of the same names and shapes, coordinates included.

    Raises:
        ValueError: axes, keys or a store that do not fit; not even one run fits in memory.
        OSError: the store cannot be written to; what was finished is kept.

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
    work = _work(run, keys, axes, zipped, static, devices, vectorize)
    path = None if store is None else Path(store)
    opened = None if path is None else _find(path, work, batch_size)
    size = work.fit(batch_size if opened is None else opened.batch_size, memory)
    if path is not None and opened is None:
        opened = _create(path, work, size)
    flat = _compute(work, size, opened, progress)
    return _labelled(flat, work, size)


def rerun(
    run: Run,
    *,
    at: Mapping[str, Any],
    batch_size: int,
    keys: Any,
    zipped: Sequence[Sequence[str]] = (),
    static: Sequence[str] = (),
    device: Device | None = None,
    vectorize: Callable[..., Any] | None = None,
    **axes: Any,
) -> Any:
    """One run of a sweep again, alone, bit for bit.

    The last digits of a run depend on the program, which maps ``batch_size`` runs together; so this computes a batch of
    the one run only, in its own place, by the same program.

    Args:
        run: as for ``sweep``.
        at: the coordinates of the run: "seed" and every axis (of those that are zipped, one is enough).
        batch_size: of the sweep, ``int(found["batch_size"])``.
        keys: as for ``sweep``.
        zipped: as for ``sweep``.
        static: as for ``sweep``.
        device: by default the first local one; another kind of device may round differently.
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
    devices = None if device is None else (device,)
    work = _work(run, keys, axes, zipped, static, devices, vectorize)
    number = work.plan.find(at)
    batch = next(batch for batch in work.plan.batches(batch_size) if number in batch.runs)
    lane = batch.runs.tolist().index(number)
    program = work.program(batch.group, batch_size, work.devices[:1])
    found = program(*work.arguments([batch._replace(runs=np.full(batch_size, number))]))
    return jax.tree.map(lambda x: np.asarray(x[lane]), found)


def _work(
    run: Run,
    keys: Any,
    axes: Mapping[str, Any],
    zipped: Sequence[Sequence[str]],
    static: Sequence[str],
    devices: Sequence[Device] | None,
    vectorize: Callable[..., Any] | None,
) -> Work:
    plan = make_plan(keys, axes, zipped=zipped, static=static)
    _check_call(run, plan)
    used = tuple(jax.local_devices() if devices is None else devices)
    return Work(run, plan, as_seeds(keys), used, vectorizer(used) if vectorize is None else vectorize)


def _check_call(run: Run, plan: Plan) -> None:
    """Raise unless ``run`` takes a key and every axis by name."""
    try:
        inspect.signature(run).bind(None, **plan.axes)
    except TypeError as error:
        raise ValueError(
            f"run must take a key and then every axis by name, but {error}; the axes are {list(plan.axes)}"
        ) from None


def _find(path: Path, work: Work, batch_size: int | None) -> Store | None:
    """The store of this sweep, or None where there is none yet."""
    opened = _store.find(path)
    # Before any process makes one, all must have looked.
    _hosts.wait("damjax: looked for a store")
    if opened is not None:
        _store.check_same(opened, work.identity(), batch_size)
    return opened


def _create(path: Path, work: Work, size: int) -> Store:
    """A new store; the first process makes it, and the others too where the folder is not shared."""
    num_batches = len(work.plan.batches(size))
    if jax.process_index() == 0:
        _store.create(path, work.identity(), num_batches, size, work.results(size))
    _hosts.wait("damjax: made a store")
    return _store.find(path) or _store.create(path, work.identity(), num_batches, size, work.results(size))


def _compute(work: Work, size: int, store: Store | None, progress: bool | str) -> dict[str, np.ndarray]:
    """The results of all runs, name -> (runs, ...)."""
    plan, batches = work.plan, work.plan.batches(size)
    flat = {name: np.zeros((plan.num_runs, *leaf.shape), leaf.dtype) for name, leaf in work.results(size).items()}
    known = np.zeros(plan.num_runs, bool)

    def keep(batch: Batch, results: Mapping[str, np.ndarray]) -> None:
        runs = batch.runs[: batch.size]
        known[runs] = True
        for name, values in results.items():
            flat[name][runs] = values[: batch.size]

    done = np.zeros(len(batches), bool) if store is None else store.done()
    if store is not None:
        for number in np.flatnonzero(done).tolist():
            keep(batches[number], store.read(number))
    mine = _hosts.share(np.flatnonzero(~done).tolist())
    rounds = _rounds(batches, mine, len(work.devices))
    total = int(known.sum()) + sum(batches[b].size for numbers in rounds for b in numbers)
    title = progress if isinstance(progress, str) else "sweep"
    hidden = not progress or jax.process_index() > 0
    with tqdm(total=total, initial=int(known.sum()), desc=title, unit="run", disable=hidden) as bar:
        for position, (numbers, results) in enumerate(_ahead(work, size, batches, rounds), 1):
            # Devices that were left over have repeated a batch.
            for number, lanes in zip(numbers, results, strict=False):
                if store is not None:
                    store.write(number, lanes)
                keep(batches[number], lanes)
                bar.update(batches[number].size)
            bar.set_postfix_str(f"chunk {position}/{len(rounds)}")
    return _hosts.exchange(flat, known)


def _rounds(batches: Sequence[Batch], pending: Sequence[int], width: int) -> list[list[int]]:
    """Numbers of batches that are computed at once, one per device, all of one program."""
    rounds = []
    for _, members in itertools.groupby(pending, key=lambda number: batches[number].group):
        numbers = list(members)
        rounds += [numbers[start : start + width] for start in range(0, len(numbers), width)]
    return rounds


def _ahead(
    work: Work, size: int, batches: Sequence[Batch], rounds: Sequence[Sequence[int]]
) -> Iterator[tuple[Sequence[int], list[dict[str, np.ndarray]]]]:
    """The results of every round, while the devices work on the next."""
    waiting = None
    for numbers in rounds:
        together = [batches[number] for number in numbers]
        started = numbers, work.start(together, size)
        if waiting is not None:
            yield waiting[0], work.finish(waiting[1], size)
        waiting = started
    if waiting is not None:
        yield waiting[0], work.finish(waiting[1], size)


def _labelled(flat: Mapping[str, np.ndarray], work: Work, size: int) -> Any:
    """Results in the shape of the sweep, with coordinates and marks."""
    plan = work.plan
    finite = np.ones(plan.num_runs, bool)
    for values in flat.values():
        if np.issubdtype(values.dtype, np.inexact):
            finite &= np.isfinite(values).reshape(plan.num_runs, -1).all(axis=1)
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
    try:
        from damjax.labelled import label
    except ImportError:
        coordinates = {axis: labels for axis, (_, labels) in plan.coordinates().items()}
        return arrays | coordinates | {SEED: np.arange(plan.shape[-1]), "batch_size": np.asarray(size)}
    return label(arrays, plan.coordinates(), (*plan.dims, SEED), size)

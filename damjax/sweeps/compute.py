"""The loop of a sweep: batches from the store, batches that this process computes, and those that others do."""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np
from tqdm import tqdm

from damjax.sweeps.job import Job
from damjax.sweeps.plan import Batch, Table
from damjax.sweeps.store import Store

__all__ = ["Gathered", "bar_of", "compute"]

# tqdm is generic for type checkers, and in its later releases at run time.
if TYPE_CHECKING:
    Bar: TypeAlias = tqdm[Any]
else:
    Bar = tqdm

POLL = 0.2  # seconds between two looks at the store


class Gathered(NamedTuple):
    """The results that this process has, on the host.

    Attributes:
        results: name -> (runs, ...); NaN, or 0 for integers, where a run is not there.
        done: which runs are there, (runs,).
    """

    results: dict[str, np.ndarray]
    done: np.ndarray

    def add(self, batch: Batch, results: Mapping[str, np.ndarray]) -> None:
        """Add the runs of a batch that count."""
        runs = batch.runs[batch.counts]
        self.done[runs] = True
        for name, values in results.items():
            self.results[name][runs] = values

    def add_stored(self, batch: Batch, store: Store | None) -> bool:
        """Add the batch if the store has it, and say whether it has."""
        results = None if store is None else store.read(batch)
        if results is None:
            return False
        self.add(batch, results)
        return True


def compute(
    job: Job,
    table: Table,
    store: Store | None,
    progress: bool | str,
    *,
    part: tuple[int, int] = (0, 1),
    whole: bool = True,
) -> Gathered:
    """The results of a sweep: of all its runs, or of this process's part and what is in the store beside.

    Processes that share a store and the work never talk. Each has every n-th batch to compute; who is done looks into
    the store for the others' batches, and computes what does not come. So none waits for one that has failed.

    Args:
        job: the sweep.
        table: where its runs stand.
        store: of this table, if there is one.
        progress: whether to show a bar, or its title.
        part: (i, n), this process's place among those that share the work.
        whole: whether all runs are wanted, or only what is there when this process's part is done.
    """
    place, num_parts = part
    gathered = _nothing(job, table.size)
    mine, others = [], []
    for number, batch in enumerate(job.plan.batches(table)):
        if not gathered.add_stored(batch, store):
            (mine if number % num_parts == place else others).append(batch)
    num_done = int(gathered.done.sum())
    last = job.plan.num_runs if whole else num_done + sum(int(batch.counts.sum()) for batch in mine)
    with bar_of(progress, total=last, initial=num_done, unit="run") as bar:
        try:
            start = time.monotonic()
            _work(job, mine, store, gathered, bar)
            if whole:
                others = _awaited(others, store, gathered, bar, seconds=time.monotonic() - start)
                _work(job, _from_the_end(others, place / num_parts), store, gathered, bar)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_left_behind(int(gathered.done.sum()), job.plan.num_runs, store)) from None
    for batch in () if whole else others:
        gathered.add_stored(batch, store)
    return gathered


def bar_of(progress: bool | str, phase: str = "", **options: Any) -> Bar:
    """A bar under the title of the sweep; the first process alone shows it, and none where there is no progress."""
    title = progress if isinstance(progress, str) else "sweep"
    return tqdm(desc=title + phase, disable=not progress or jax.process_index() > 0, **options)


def _nothing(job: Job, size: int) -> Gathered:
    """Room for the results of all runs."""

    def room(result: jax.ShapeDtypeStruct) -> np.ndarray:
        empty = np.nan if np.dtype(result.dtype).kind in "fc" else 0
        return np.full((job.plan.num_runs, *result.shape), empty, result.dtype)

    return Gathered(
        {name: room(result) for name, result in job.results(size).items()}, np.zeros(job.plan.num_runs, bool)
    )


def _work(job: Job, batches: Sequence[Batch], store: Store | None, gathered: Gathered, bar: tqdm) -> None:
    """Compute these batches, but for those that another process has added to the store by then; keep each at once."""
    lacking = (batch for batch in batches if not gathered.add_stored(batch, store))
    num_rounds = sum(1 for _ in _rounds(batches, len(job.devices)))
    for position, (together, lanes) in enumerate(_ahead(job, _rounds(lacking, len(job.devices))), 1):
        # Devices that were left over have repeated a batch.
        for batch, results in zip(together, lanes, strict=False):
            finished = {name: values[batch.counts] for name, values in results.items()}
            if store is not None:
                store.write(batch, finished)
            gathered.add(batch, finished)
        bar.set_postfix_str(f"chunk {position}/{num_rounds}", refresh=False)
        bar.update(int(gathered.done.sum()) - bar.n)


def _rounds(batches: Iterable[Batch], width: int) -> Iterator[list[Batch]]:
    """Batches that are computed at once, one per device, all of one program; each is asked for when its turn comes."""
    for _, members in itertools.groupby(batches, key=lambda batch: batch.group):
        while together := list(itertools.islice(members, width)):
            yield together


def _ahead(
    job: Job, rounds: Iterable[Sequence[Batch]]
) -> Iterator[tuple[Sequence[Batch], list[dict[str, np.ndarray]]]]:
    """The results of every round, while the devices work on the next."""
    waiting = None
    for together in rounds:
        started = together, job.start(together)
        if waiting is not None:
            yield waiting[0], job.finish(waiting[1])
        waiting = started
    if waiting is not None:
        yield waiting[0], job.finish(waiting[1])


def _awaited(
    batches: Sequence[Batch], store: Store | None, gathered: Gathered, bar: tqdm, *, seconds: float
) -> list[Batch]:
    """Wait for what other processes add to the store, and give what has not come in this time.

    They have as much to do as this one had: whoever takes twice as long has failed, or may get help.
    """
    deadline = time.monotonic() + seconds
    while batches := [batch for batch in batches if not gathered.add_stored(batch, store)]:
        bar.update(int(gathered.done.sum()) - bar.n)
        if time.monotonic() > deadline:
            break
        time.sleep(POLL)
    return batches


def _from_the_end(batches: Sequence[Any], share: float) -> list[Any]:
    """In an order in which this process seldom meets the one whose batches they are, or another that helps it.

    Example:
        >>> [_from_the_end([1, 2, 3, 4], share) for share in (0.0, 0.5)]
        [[4, 3, 2, 1], [2, 1, 4, 3]]
    """
    start = int(share * len(batches))
    backwards = [*reversed(batches)]
    return [*backwards[start:], *backwards[:start]]


def _left_behind(num_done: int, num_runs: int, store: Store | None) -> str:
    """What a sweep that was stopped leaves, and how to go on."""
    if store is None:
        return f"stopped after {num_done} of {num_runs} runs, and none is kept, since the sweep has no store"
    return f"stopped: {num_done} of {num_runs} runs are kept in {store.path}; call the same sweep again to go on"

"""The loop of a sweep: this host's share of the batches, from its store or into it, and then those of all hosts."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from damjax import _hosts
from damjax._plan import Batch, Table
from damjax._store import Store
from damjax._work import Work


def compute(work: Work, table: Table, store: Store | None, progress: bool | str) -> dict[str, np.ndarray]:
    """The results of all runs, name -> (runs, ...)."""
    plan, batches, size = work.plan, work.plan.batches(table), math.prod(table.block)
    flat = {name: np.zeros((plan.num_runs, *leaf.shape), leaf.dtype) for name, leaf in work.results(size).items()}
    known = np.zeros(plan.num_runs, bool)

    def keep(batch: Batch, results: Mapping[str, np.ndarray]) -> None:
        runs = batch.runs[batch.counts]
        known[runs] = True
        for name, values in results.items():
            flat[name][runs] = values

    pending = []
    for number, batch in enumerate(batches):
        if store is not None and (before := store.read(batch)) is not None:
            keep(batch, before)
        elif _hosts.is_mine(number):
            pending.append(number)
    rounds = _rounds(batches, pending, len(work.devices))
    total = int(known.sum()) + sum(batches[b].counts.sum() for numbers in rounds for b in numbers)
    problem = None
    with bar_of(progress, total=total, initial=int(known.sum()), unit="run") as bar:
        try:
            for position, (numbers, results) in enumerate(_ahead(work, size, batches, rounds), 1):
                # Devices that were left over have repeated a batch.
                for number, lanes in zip(numbers, results, strict=False):
                    batch = batches[number]
                    counted = {name: values[batch.counts] for name, values in lanes.items()}
                    if store is not None:
                        store.write(batch, counted)
                    keep(batch, counted)
                bar.set_postfix_str(f"chunk {position}/{len(rounds)}", refresh=False)
                bar.update(sum(int(batches[number].counts.sum()) for number in numbers))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_left_behind(int(known.sum()), plan.num_runs, store)) from None
        except Exception as error:  # raised below, on every host
            problem = error
    _hosts.agree(problem)
    return _hosts.exchange(flat, known)


def bar_of(progress: bool | str, phase: str = "", **options: Any) -> tqdm:
    """A bar under the title of the sweep; the first process alone shows it, and none where there is no progress."""
    title = progress if isinstance(progress, str) else "sweep"
    return tqdm(desc=title + phase, disable=not progress or jax.process_index() > 0, **options)


def _left_behind(num_known: int, num_runs: int, store: Store | None) -> str:
    """What a sweep that was stopped leaves, and how to go on."""
    if store is None:
        return f"stopped after {num_known} of {num_runs} runs, and none is kept, since the sweep has no store"
    return f"stopped: {num_known} of {num_runs} runs are kept in {store.path}; call the same sweep again to go on"


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

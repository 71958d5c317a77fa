"""What all hosts must agree on before a sweep computes: the size of its batches, and a store for each."""

from pathlib import Path

import jax

from damjax import _hosts, _store
from damjax._contents import Contents, Coordinates
from damjax._plan import Table
from damjax._store import Description, Store, StoreError
from damjax._work import Work


def table_and_store(
    work: Work, batch_size: int | None, memory: int | None, path: Path | None
) -> tuple[Table, Store | None]:
    """The table of runs and the store; all hosts go on with one table, or all stop when one of them can't."""
    opened, size, problem = None, 0, None
    wanted = None if path is None else work.contents()
    try:
        if path is not None and wanted is not None and (opened := _store.find(path)) is not None:
            _store.check_same(opened, work.identity(), wanted, batch_size)
            size = opened.size
            work.programs(size)
        else:
            size = work.fit(batch_size, memory)
    except Exception as error:  # raised below, on every host
        problem = error
    hosts = _hosts.agree(problem, size=size, has_store=opened is not None, devices=len(work.devices))
    if len(set(hosts["devices"].tolist())) > 1:
        raise ValueError(f"every host must use as many devices, but they use {hosts['devices'].tolist()}")
    kept = hosts["size"][hosts["has_store"] > 0]
    if len(set(kept.tolist())) > 1:
        raise StoreError(f"the hosts' stores must have one batch size, but theirs are {kept.tolist()}; delete them")
    # What is free differs from host to host; what a store holds does not change.
    size = int(kept.min() if len(kept) else hosts["size"].min())
    if path is None or wanted is None:
        return work.table(size), None
    opened = _open_everywhere(path, work, wanted, size, batch_size)
    table, made_by = opened.table(wanted), opened.made_by
    # Thirty bits of what the hosts' tables must have in common, for each numbers its batches by its own.
    print_of = int(_store.digest(repr((made_by.contents, made_by.block))), 16) % 2**30
    if len(set(prints := _hosts.agree(None, table=print_of)["table"].tolist())) > 1:
        raise StoreError(f"the hosts' stores must hold the same runs in one order, but they differ: {prints}")
    return table, opened


def _open_everywhere(path: Path, work: Work, wanted: Contents, size: int, batch_size: int | None) -> Store:
    """The store of every host, with room for the sweep: the first process makes it or makes that, others follow."""
    opened, problem = None, None
    for turn in (True, False):
        if (jax.process_index() == 0) == turn:
            try:
                opened = _store.find(path) or _store.create(path, *_described(work, wanted, size, batch_size))
                # Another sweep may have made it meanwhile.
                _store.check_same(opened, work.identity(), wanted, None)
                if opened.size != size:
                    raise StoreError(
                        f"store {path} was made meanwhile with batches of {opened.size}, not {size}; call again"
                    )
                opened = _with_room(opened, work, wanted)
            except Exception as error:  # raised below, on every host
                problem = error
        _hosts.agree(problem)
    assert opened is not None
    return opened


def _described(work: Work, wanted: Contents, size: int, batch_size: int | None) -> tuple[Description, Coordinates]:
    """A store for this sweep alone."""
    results = {
        name: (str(result.dtype), result.shape, work.own_dims(name, len(result.shape)))
        for name, result in work.results(size).items()
    }
    asked = size if batch_size is None else batch_size
    block = work.table(size).block
    return Description(work.identity(), wanted, block, asked, results), work.coordinates()


def _with_room(store: Store, work: Work, wanted: Contents) -> Store:
    """The store, extended if this sweep asks for more runs than it has places for, or calls axes otherwise."""
    described, coordinates = _described(work, wanted, store.size, None)
    held = store.made_by.contents
    for name in {*store.made_by.results, *described.results}:
        there, here = store.made_by.results.get(name, (None,) * 3), described.results.get(name, (None,) * 3)
        if there[:2] != here[:2]:
            raise StoreError(
                f"store {store.path} belongs to another sweep: its results hold {name!r} as {there[0]} {there[1]},"
                f" this sweep's as {here[0]} {here[1]}. Give a new folder"
            )
    joined = store.made_by._replace(contents=held.joined(wanted), results=described.results)
    if joined == store.made_by:
        return store
    return _store.extend(store, joined, held.joined_labels(store.coordinates(), wanted, coordinates))

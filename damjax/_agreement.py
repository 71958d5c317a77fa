"""What all hosts must agree on before a sweep computes: the size of its batches, and a store for each."""

from pathlib import Path

import jax

from damjax import _hosts, _store
from damjax._store import Store, StoreError
from damjax._work import Work


def size_and_store(
    work: Work, batch_size: int | None, memory: int | None, path: Path | None
) -> tuple[int, Store | None]:
    """The batch size and the store; all hosts go on with one size, or all stop when one of them can't."""
    opened, size, problem = None, 0, None
    try:
        if path is not None and (opened := _store.find(path)) is not None:
            _store.check_same(opened, work.identity(), batch_size)
            batch_size = opened.batch_size
        size = work.fit(batch_size, memory)
    except Exception as error:  # raised below, on every host
        problem = error
    hosts = _hosts.agree(problem, size=size, has_store=opened is not None, devices=len(work.devices))
    if len(set(hosts["devices"].tolist())) > 1:
        raise ValueError(f"every host must use as many devices, but they use {hosts['devices'].tolist()}")
    kept = hosts["size"][hosts["has_store"] > 0]
    # What is free differs from host to host; what a store holds does not change.
    size = int(kept.min() if len(kept) else hosts["size"].min())
    if len(set(kept.tolist())) > 1:
        raise StoreError(f"the hosts' stores must have one batch size, but theirs are {kept.tolist()}; delete them")
    return size, opened if path is None else _open_everywhere(path, work, size, opened)


def _open_everywhere(path: Path, work: Work, size: int, opened: Store | None) -> Store:
    """The store of every host: the first process makes it, and the others too where the folder is not shared."""
    problem = None
    for turn in (True, False):
        if opened is None and (jax.process_index() == 0) == turn:
            try:
                opened = _store.find(path) or _store.create(
                    path, work.identity(), len(work.plan.batches(size)), size, work.results(size)
                )
                # Another sweep may have made it meanwhile.
                _store.check_same(opened, work.identity(), None)
                if opened.batch_size != size:
                    raise StoreError(
                        f"store {path} was made meanwhile with batch_size {opened.batch_size}, not {size}; call again"
                    )
            except Exception as error:  # raised below, on every host
                problem = error
        _hosts.agree(problem)
    assert opened is not None
    return opened

"""The store of a sweep: a folder in the zarr format to which every finished batch is added, whole or not at all.

It is a labelled dataset that xarray opens, while the sweep runs too: an array per result over the table of runs, with
the names and labels of its axes, and ``done``, which says which runs are there. A batch is a block of the table and a
chunk of every array. Each chunk is a file that is written beside its place and then renamed, and the chunk of ``done``
comes last: so whenever the process is killed, a batch either counts, and is complete, or does not.

Any number of processes, on any number of hosts that share the disk, use a store at once. Who makes it first has made
it, and the others take it as it is. Runs never move, and whoever writes a block writes what any other would have
written. A lock on the file that describes the store, which the system takes back from a process that dies, does the
rest: none writes while another puts a larger store into its place, and none writes half a block while another writes
the other half.
"""

import contextlib
import errno
import glob
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from damjax._checks import missing_extra
from damjax.sweeps.contents import FORMAT, Contents, Coordinates, Description
from damjax.sweeps.plan import SEED, Batch, Table

__all__ = ["Store", "StoreError", "check_same", "create", "extend", "find", "place_of"]

DONE = "done"
WRITE_ALL = {"write_empty_chunks": True}
ATTRIBUTE = "damjax_sweep"
DESCRIPTION = "zarr.json"  # the file in which zarr keeps the attribute
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class StoreError(ValueError):
    """A store that ``damjax.sweep`` can't use: it belongs to another sweep, is damaged, or is no store at all.

    Nothing in the folder was changed. Where the file system fails, an OSError is raised instead.
    """


class Store(NamedTuple):
    """An open store.

    Attributes:
        path: its folder.
        made_by: its description.
        arrays: the zarr arrays by their folders: ``done``, and one per result.
        stamp: what tells it from a larger store that takes its place.
    """

    path: Path
    made_by: Description
    arrays: dict[str, Any]
    stamp: tuple[int, ...]

    @property
    def size(self) -> int:
        """Runs per batch; a sweep that resumes must keep it, or its numbers would differ in the last digits."""
        return int(np.prod(self.made_by.block))

    def coordinates(self) -> Coordinates:
        """The labels of its runs, without those that it may have got since it was opened."""
        lengths = dict(zip((*self.made_by.contents.values, SEED), self.made_by.contents.shape(), strict=True))
        opened = _xarray().open_zarr(self.path, chunks=None)
        dims = {axis: str(labels.dims[0]) for axis, labels in opened.coords.items() if labels.ndim}
        return {axis: (dim, opened.coords[axis].values[: lengths[dim]]) for axis, dim in dims.items()}

    def table(self, contents: Contents) -> Table:
        """Where the runs of a sweep, all of which are among the store's, stand in it."""
        stored = self.made_by.contents
        return Table(stored.shape(), self.made_by.block, stored.places(contents))

    def read(self, batch: Batch) -> dict[str, np.ndarray] | None:
        """The results of the runs that count; None if one is missing, or (with a warning) if a file is damaged."""
        with _explained(self.path, "read"), self._locked() as store:
            block, counts = store._block(batch.corner), store._inside(batch)
        if block is None or not block.pop(DONE)[counts].all():
            return None
        return {name: block[place_of(name)][counts] for name in self.made_by.results}

    def write(self, batch: Batch, results: Mapping[str, np.ndarray]) -> None:
        """Add the runs of a batch that count; if this fails or is killed, those before it stay as they were."""
        with _explained(self.path, "write to"):
            with self._locked() as store:
                if alone := bool(store._inside(batch).all()):
                    store._put(batch, results)
            if not alone:
                # Another sweep may be about to write its runs into the same block.
                with self._locked(exclusive=True) as store:
                    store._put(batch, results)

    def _put(self, batch: Batch, results: Mapping[str, np.ndarray]) -> None:
        """Write a block: the runs of the batch that count, and the others as they were."""
        counts = self._inside(batch)
        before = None if counts.all() else self._block(batch.corner)
        # The chunk of ``done`` comes last.
        by_place = {place_of(name): values for name, values in results.items()}
        for place, values in {**by_place, DONE: np.True_}.items():
            array = self.arrays[place]
            new = np.full((*counts.shape, *array.shape[counts.ndim :]), array.fill_value, array.dtype)
            if before is not None:
                new[...] = before[place]
            new[counts] = values
            array[self._region(batch.corner)] = new

    @contextlib.contextmanager
    def _locked(self, *, exclusive: bool = False) -> Iterator["Store"]:
        """The store as it is now, which may have got larger, and stays as it is meanwhile."""
        with _lock(self.path, exclusive=exclusive) as stamp:
            yield self if stamp == self.stamp else _opened(self.path, stamp)

    def everything(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """All results by name, and which runs are there: the others are NaN or 0."""
        arrays = {place: np.full(array.shape, array.fill_value, array.dtype) for place, array in self.arrays.items()}
        lengths = zip(arrays[DONE].shape, self.made_by.block, strict=True)
        with _explained(self.path, "read"), self._locked():
            for corner in np.ndindex(*(-(-length // block) for length, block in lengths)):
                for place, values in (self._block(corner) or {}).items():
                    arrays[place][self._region(corner)] = values
        return {name: arrays[place_of(name)] for name in self.made_by.results}, arrays[DONE]

    def _region(self, corner: Sequence[int]) -> tuple[slice, ...]:
        """The part of an array that a block is."""
        lengths = zip(corner, self.made_by.block, self.arrays[DONE].shape, strict=True)
        return tuple(slice(at * block, min((at + 1) * block, length)) for at, block, length in lengths)

    def _inside(self, batch: Batch) -> np.ndarray:
        """Which runs of a block count, without what lies beyond the table's edge."""
        inside = tuple(slice(part.stop - part.start) for part in self._region(batch.corner))
        return batch.counts.reshape(self.made_by.block)[inside]

    def _block(self, corner: tuple[int, ...]) -> dict[str, np.ndarray] | None:
        """What is kept of a block; None where nothing is, or (with a warning) where a file of it is damaged."""
        if not self._has(DONE, corner):
            return None
        try:
            if all(self._has(place, corner) for place in self.arrays):
                return {place: array[self._region(corner)] for place, array in self.arrays.items()}
            reason = "a file is missing"
        except (RuntimeError, ValueError, OSError) as error:  # what the decoders of a broken file say
            reason = str(error)
        warnings.warn(
            f"batch {corner} of the store {self.path} is damaged, and is computed again ({reason})",
            RuntimeWarning,
            stacklevel=3,
        )
        return None

    def _has(self, place: str, corner: tuple[int, ...]) -> bool:
        """Whether a block has its file; an array without entries has none."""
        array = self.arrays[place]
        chunk = array.metadata.encode_chunk_key((*corner, *[0] * (array.ndim - len(corner))))
        return not array.size or (self.path / place / chunk).is_file()


def find(path: Path) -> Store | None:
    """The store at the absolute ``path``, or None where there is nothing yet.

    Raises:
        StoreError: something else is there, a store of another format, or one that is damaged.
        ImportError: zarr is not installed.
    """
    _zarr()
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _explained(path, "read"), _lock(path) as stamp:
        return _opened(path, stamp)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    raise StoreError(_something_else(path))


def _opened(path: Path, stamp: tuple[int, ...]) -> Store:
    """The store in a folder, whose lock this process has."""
    zarr = _zarr()
    group = None
    try:
        with contextlib.suppress(zarr.errors.GroupNotFoundError):
            group = zarr.open_group(path, mode="r+")
        if group is None or ATTRIBUTE not in group.attrs:
            raise StoreError(_something_else(path))
        attribute = group.attrs[ATTRIBUTE]
        if attribute.get("format") != FORMAT:
            raise StoreError(
                f"store {path} was made by another version of damjax, in the format {attribute.get('format', 1)}, not"
                f" {FORMAT}; give a new folder"
            )
        made_by = Description.from_attribute(attribute)
        # Arrays don't remember this from when they were made.
        arrays = {place: group[place].with_config(WRITE_ALL) for place in (*map(place_of, made_by.results), DONE)}
        return Store(path, made_by, arrays, stamp)
    except KeyError as error:
        raise StoreError(
            f"store {path} is damaged: its array {error} is missing; bring it back, or delete the store"
        ) from None
    except StoreError:
        raise
    except ValueError as error:  # what is said of a broken zarr.json
        raise StoreError(
            f"store {path} is damaged: a zarr.json in it can't be read ({error}); bring it back, or give a new folder"
        ) from error


def _something_else(path: Path) -> str:
    return f"store must be a new folder or one that a sweep has made, but {path} holds something else"


def create(path: Path, made_by: Description, coordinates: Coordinates) -> Store:
    """Make a new store; if another process is faster, its store, which may be that of another sweep."""
    with _explained(path, "write to"):
        draft = _draft(path, made_by, coordinates)
        # What another process is about to replace is not taken for a place that is free.
        _bring_back(path)
        try:
            draft.rename(path)
        except OSError as error:
            shutil.rmtree(draft)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    return _made(path)


def extend(store: Store, more: Description, coordinates: Coordinates) -> Store:
    """Make room for the runs of another sweep of the same program; nothing that the store holds is lost or moved.

    A store of the new shape, with the old one's files, takes its place. Whoever kills this in between finds the old
    one again, by ``find``. Of several processes that want the same room one makes it.

    Args:
        store: holds runs of the same program, as ``check_same`` says.
        more: describes the other sweep.
        coordinates: the labels of its runs.

    Raises:
        StoreError: its results are of another kind.
    """
    path = store.path
    _check_results(store, more)
    if store.made_by.joined(more) == store.made_by:
        return store
    with _explained(path, "write to"), store._locked(exclusive=True) as current:
        made_by = current.made_by.joined(more)
        if made_by != current.made_by:
            labels = current.made_by.contents.joined_labels(current.coordinates(), more.contents, coordinates)
            draft = _draft(path, made_by, labels)
            for place in current.arrays:
                if (path / place / "c").is_dir():
                    shutil.copytree(path / place / "c", draft / place / "c", copy_function=_link, dirs_exist_ok=True)
            aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.old")
            path.rename(aside)
            draft.rename(path)
            shutil.rmtree(aside)
    return _made(path)


def _check_results(store: Store, more: Description) -> None:
    """Raise unless results are of the same names, dtypes and shapes; their axes may get other names."""
    for name in {*store.made_by.results, *more.results}:
        stored, wanted = (description.results.get(name, (None,) * 3) for description in (store.made_by, more))
        if stored[:2] != wanted[:2]:
            raise StoreError(
                f"store {store.path} belongs to another sweep: its results hold {name!r} as {stored[0]} {stored[1]},"
                f" this sweep's as {wanted[0]} {wanted[1]}. Give a new folder"
            )


def _made(path: Path) -> Store:
    """The store that was just put there."""
    store = find(path)
    if store is None:
        raise StoreError(f"store {path} was deleted by somebody while it was made; call the sweep again")
    return store


@contextlib.contextmanager
def _lock(path: Path, *, exclusive: bool = False) -> Iterator[tuple[int, ...]]:
    """Let nobody replace the store meanwhile, nor, where it is exclusive, read or write it; gives the store's stamp.

    The lock belongs to an open file, the store's description, so that it ends with the process, whatever ends it. A
    store that takes the place of another has a file, and a lock, of its own.
    """
    import fcntl  # a part of Python on all systems but Windows, which can do without stores

    while True:
        try:
            # Over NFS, an exclusive lock needs a file that is open for writing.
            file = (path / DESCRIPTION).open("r+b" if exclusive else "rb")
        except FileNotFoundError:
            if _bring_back(path):
                continue
            raise
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                if exclusive:
                    warnings.warn(
                        f"the disk of {path} knows no locks (flock); while a sweep extends a store, no other one may"
                        f" use it",
                        RuntimeWarning,
                        stacklevel=2,
                    )
            stamp = _stamp(file.fileno())
            # Who has waited may have got the lock of a store that was replaced meanwhile.
            if stamp == _stamp(path / DESCRIPTION):
                yield stamp
                return


def _stamp(file: int | Path) -> tuple[int, ...]:
    """What tells a file from others, also from those that have its place later; nothing where there is none."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _bring_back(path: Path) -> bool:
    """Put a store back into its place if the process that was about to replace it has been killed; is one there now?"""
    if not path.exists() and path.parent.is_dir():
        for aside in sorted(path.parent.glob(f".{glob.escape(path.name)}.*.old")):
            # Whoever is about to replace it has its lock until the other one is in its place.
            with contextlib.suppress(FileNotFoundError), _lock(aside, exclusive=True):
                if not path.exists():
                    aside.rename(path)
    return (path / DESCRIPTION).exists()


def _link(source: str, target: str) -> None:
    """The same file under a second name, where the file system can; chunks are replaced, never written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _draft(path: Path, made_by: Description, coordinates: Coordinates) -> Path:
    """A store beside its place and under another name, so that a half-made one is never taken for a store."""
    zarr, xarray = _zarr(), _xarray()
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    draft.parent.mkdir(parents=True, exist_ok=True)
    labels = xarray.Dataset(coords={**coordinates, "batch_size": int(np.prod(made_by.block))})
    with warnings.catch_warnings():
        # Texts and consolidated descriptions are not in the format's text yet; zarr and xarray agree on them.
        warnings.filterwarnings("ignore", module="zarr|xarray")
        labels.to_zarr(draft, zarr_format=3, consolidated=False)
        group = zarr.open_group(draft, mode="r+")
        group.attrs[ATTRIBUTE] = made_by.as_attribute()
        dims = (*made_by.contents.values, SEED)
        arrays = {place_of(name): result for name, result in made_by.results.items()} | {DONE: ("bool", (), ())}
        for place, (dtype, shape, own) in arrays.items():
            group.create_array(
                place,
                shape=(*made_by.contents.shape(), *shape),
                chunks=(*made_by.block, *(max(1, length) for length in shape)),
                dtype=dtype,
                fill_value=np.nan if np.dtype(dtype).kind in "fc" else 0,
                dimension_names=(*dims, *own),
                config=WRITE_ALL,
                # Every chunk gets a file, and its checksum: what was lost is not taken for what was never there.
                compressors=zarr.codecs.ZstdCodec(checksum=True),
            )
        zarr.consolidate_metadata(draft)
    return draft


def place_of(name: str) -> str:
    """The folder of an array, and xarray's name for it: that of the result, but for what no folder can be called."""
    escaped = quote(name, safe=" ")
    return f"%{ord(name[0]):02X}{escaped[1:]}" if name == DONE or escaped.startswith((".", "__")) else escaped


def check_same(store: Store, identity: Mapping[str, Any], contents: Contents, batch_size: int | None) -> None:
    """Raise unless the store holds runs of this very program, by the same keys, so that the rest can join them.

    Raises:
        StoreError: with what differs.
    """
    differences = list(store.made_by.differences(identity, contents, batch_size))
    if differences:
        raise StoreError(
            f"store {store.path} belongs to another sweep: {'; '.join(differences)}. Give a new folder, or call the"
            f" sweep that made this one"
        )


@contextlib.contextmanager
def _explained(path: Path, action: str) -> Iterator[None]:
    """Failures of the file system, with what they mean for the sweep."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot {action} the store: {error.strerror or error}. Every batch that was finished before is kept; free"
            f" space or give a folder that may be written to, and call the same sweep again",
            str(path),
        ) from error


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise missing_extra("a store needs zarr", "sweeps") from error
    return zarr


def _xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        raise missing_extra("a store needs xarray", "sweeps") from error
    return xarray

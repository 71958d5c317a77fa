"""The store of a sweep: a folder in the zarr format to which every finished batch is added, whole or not at all.

It is a labelled dataset that xarray opens, while the sweep runs too: an array per result over the table of runs, with
the names and labels of its axes, and ``done``, which says which runs are there. A batch is a block of the table and a
chunk of every array. Each chunk is a file that is written beside its place and then renamed, and the chunk of ``done``
comes last: so whenever the process is killed, a batch either counts, and is complete, or does not.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from damjax._checks import brief
from damjax._contents import Contents, Coordinates
from damjax._plan import SEED, Batch, Table
from damjax._version import __version__

FORMAT = 2
DONE = "done"
WRITE_ALL = {"write_empty_chunks": True}
ATTRIBUTE = "damjax_sweep"


class StoreError(ValueError):
    """A store that ``damjax.sweep`` can't use: it belongs to another sweep, is damaged, or is no store at all.

    Nothing in the folder was changed. Where the file system fails, an OSError is raised instead.
    """


class Description(NamedTuple):
    """What a store says of itself.

    Attributes:
        identity: what all its runs have in common.
        contents: its runs.
        block: shape of the blocks of its table.
        batch_size: that was asked for when it was made, if any, else the size of a block.
        results: name -> (dtype, own shape, names of own axes).
    """

    identity: dict[str, Any]
    contents: Contents
    block: tuple[int, ...]
    batch_size: int
    results: dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]

    def as_attribute(self) -> dict[str, Any]:
        """As it is kept."""
        # As lists: JSON promises no order of names.
        contents = self.contents._asdict() | {"values": list(self.contents.values.items())}
        results = [(name, *result) for name, result in self.results.items()]
        return {"format": FORMAT, **self._asdict(), "contents": contents, "results": results}

    @classmethod
    def from_attribute(cls, kept: Mapping[str, Any]) -> "Description":
        """What ``as_attribute`` gave, after a time among JSON."""
        results = {name: (dtype, tuple(shape), tuple(dims)) for name, dtype, shape, dims in kept["results"]}
        contents = Contents(**kept["contents"] | {"values": dict(kept["contents"]["values"])})
        return cls(kept["identity"], contents, tuple(kept["block"]), kept["batch_size"], results)


class Store(NamedTuple):
    """An open store.

    Attributes:
        path: its folder.
        made_by: its description.
        arrays: the zarr arrays by their folders: ``done``, and one per result.
    """

    path: Path
    made_by: Description
    arrays: dict[str, Any]

    @property
    def size(self) -> int:
        """Runs per batch; a sweep that resumes must keep it, or its numbers would differ in the last digits."""
        return int(np.prod(self.made_by.block))

    def coordinates(self) -> Coordinates:
        """The labels of its runs."""
        opened = _xarray().open_zarr(self.path, chunks=None)
        return {axis: (str(labels.dims[0]), labels.values) for axis, labels in opened.coords.items() if labels.ndim}

    def table(self, contents: Contents) -> Table:
        """Where the runs of a sweep, all of which are among the store's, stand in it."""
        held = self.made_by.contents
        return Table(held.shape(), self.made_by.block, held.places(contents))

    def read(self, batch: Batch) -> dict[str, np.ndarray] | None:
        """The results of the runs that count; None if one is missing, or (with a warning) if a file is damaged."""
        block = self._block(batch.corner)
        counts = self._inside(batch)
        if block is None or not block.pop(DONE)[counts].all():
            return None
        return {name: block[place_of(name)][counts] for name in self.made_by.results}

    def write(self, batch: Batch, results: Mapping[str, np.ndarray]) -> None:
        """Add the runs of a batch that count; if this fails or is killed, those before it stay as they were."""
        counts = self._inside(batch)
        before = None if counts.all() else self._block(batch.corner)
        with _explained(self.path, "write to"):
            # The chunk of ``done`` comes last.
            by_place = {place_of(name): values for name, values in results.items()}
            for place, values in {**by_place, DONE: np.True_}.items():
                array = self.arrays[place]
                new = np.full((*counts.shape, *array.shape[counts.ndim :]), array.fill_value, array.dtype)
                if before is not None:
                    new[...] = before[place]
                new[counts] = values
                array[self._region(batch.corner)] = new

    def everything(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """All results by name, and which runs are there: NaN or 0 is all that is known of the others."""
        found = {place: np.full(array.shape, array.fill_value, array.dtype) for place, array in self.arrays.items()}
        lengths = zip(found[DONE].shape, self.made_by.block, strict=True)
        for corner in np.ndindex(*(-(-length // block) for length, block in lengths)):
            for place, values in (self._block(corner) or {}).items():
                found[place][self._region(corner)] = values
        return {name: found[place_of(name)] for name in self.made_by.results}, found[DONE]

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


def digest(*parts: str | bytes | np.ndarray) -> str:
    """A short fingerprint of texts and arrays."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype} {part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()[:16]


def versions() -> dict[str, str]:
    """The packages on which the last digits depend."""
    return {"damjax": __version__} | {package: version(package) for package in ("jax", "jaxlib")}


def find(path: Path) -> Store | None:
    """The store at the absolute ``path``, or None where there is nothing yet.

    Raises:
        StoreError: something else is there, a store of another format, or one that is damaged.
        ImportError: zarr is not installed.
    """
    zarr = _zarr()
    _bring_back(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    group = None
    try:
        with _explained(path, "read"), contextlib.suppress(zarr.errors.GroupNotFoundError):
            group = zarr.open_group(path, mode="r+") if path.is_dir() else None
        if group is not None and ATTRIBUTE in group.attrs:
            kept = group.attrs[ATTRIBUTE]
            if kept.get("format") != FORMAT:
                raise StoreError(
                    f"store {path} was made by another version of damjax, in the format {kept.get('format', 1)}, not"
                    f" {FORMAT}; give a new folder"
                )
            made_by = Description.from_attribute(kept)
            # Arrays don't remember this from when they were made.
            arrays = {place: group[place].with_config(WRITE_ALL) for place in (*map(place_of, made_by.results), DONE)}
            return Store(path, made_by, arrays)
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
    raise StoreError(f"store must be a new folder or one that a sweep has made, but {path} holds something else")


def create(path: Path, made_by: Description, coordinates: Coordinates) -> Store:
    """Make a new store, unless another process is faster."""
    with _explained(path, "write to"):
        draft = _draft(path, made_by, coordinates)
        try:
            draft.rename(path)
        except OSError as error:
            shutil.rmtree(draft)
            # Another process was faster; whether its store will do is for ``check_same`` to say.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    made = find(path)
    assert made is not None
    return made


def extend(store: Store, made_by: Description, coordinates: Coordinates) -> Store:
    """Make room for what is described, which is what the store holds and more; nothing that it holds is lost or moved.

    A store of the new shape, with the old one's files, takes its place. Whoever kills this in between finds the old
    one again, by ``find``.
    """
    path = store.path
    with _explained(path, "write to"):
        draft = _draft(path, made_by, coordinates)
        for place in store.arrays:
            if (path / place / "c").is_dir():
                shutil.copytree(path / place / "c", draft / place / "c", copy_function=_link, dirs_exist_ok=True)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.old")
        path.rename(aside)
        draft.rename(path)
        shutil.rmtree(aside)
    made = find(path)
    assert made is not None
    return made


def _bring_back(path: Path) -> None:
    """Put a store back into its place if the process that was about to replace it has been killed."""
    if not path.exists() and path.parent.is_dir():
        for aside in path.parent.glob(f".{path.name}.*.old"):
            aside.rename(path)
            return


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
    known = {axis: (dim, labels) for axis, (dim, labels) in coordinates.items()}
    labels = xarray.Dataset(coords={**known, "batch_size": int(np.prod(made_by.block))})
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
    held = store.made_by.contents
    asked = (store.made_by.batch_size, store.size)
    both = [called for called in held.programs if called in contents.programs]
    num_seeds = min(len(held.seeds), len(contents.seeds))

    def comparable(identity: Mapping[str, Any], runs: Contents, size: int) -> dict[str, Any]:
        """What must agree."""
        named = {"program": digest(*(runs.programs[called] for called in both)) if both else ""}
        parts = dict(identity) | {"batch_size": size, "by place": runs.by_place}
        seeds = f"the digest {digest(*runs.seeds[:num_seeds])} of the first {num_seeds}"
        return parts | {"function": identity["function"] | named, "seeds": {"have": seeds}}

    there = comparable(store.made_by.identity, held, asked[0])
    here = comparable(identity, contents, asked[0] if batch_size is None or batch_size in asked else batch_size)
    differences = list(_differences(there, here))
    if differences:
        raise StoreError(
            f"store {store.path} belongs to another sweep: {'; '.join(differences)}. Give a new folder, or call the"
            f" sweep that made this one"
        )


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for part in {**there, **here}:
            label = f"{name} {part}".strip()
            if part not in here:
                yield f"{label} is {brief(there[part])} there and missing here"
            elif part not in there:
                yield f"{label} is missing there and {brief(here[part])} here"
            else:
                yield from _differences(there[part], here[part], label)
    elif there != here:
        yield f"{name} is {brief(there)} there and {brief(here)} here"


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
        raise ImportError("a store needs zarr; install it with: pip install 'damjax[sweeps]'") from error
    return zarr


def _xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        raise ImportError("a store needs xarray; install it with: pip install 'damjax[sweeps]'") from error
    return xarray

"""The store of a sweep: a folder in the zarr format to which every finished batch is added, whole or not at all.

One array per result, (batches, batch_size, ...), chunked by batch, and an array ``done`` that says which batches are
there. Each chunk is a file that is written beside its place and then renamed, and the chunk of ``done`` comes last: so
whenever the process is killed, a batch either counts, and is complete, or does not.
"""

import contextlib
import errno
import hashlib
import shutil
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from damjax._version import __version__

FORMAT = 1
DONE = "done"
WRITE_ALL = {"write_empty_chunks": True}
PREFIX = "result."  # so that no result can be taken for anything else in the folder
ATTRIBUTE = "damjax_sweep"


class StoreError(ValueError):
    """A store that ``damjax.sweep`` can't use: it belongs to another sweep, is damaged, or is no store at all.

    Nothing in the folder was changed. Where the file system fails, an OSError is raised instead.
    """


class Store(NamedTuple):
    """An open store.

    Attributes:
        path: its folder.
        made_by: what tells the sweep that made it from others.
        arrays: the zarr arrays: ``done``, and one per result.
    """

    path: Path
    made_by: dict[str, Any]
    arrays: dict[str, Any]

    @property
    def batch_size(self) -> int:
        """Runs per batch; a sweep that resumes must keep it, or its numbers would differ in the last digits."""
        return self.made_by["batch_size"]

    def read(self, batch: int, names: Collection[str]) -> dict[str, np.ndarray] | None:
        """The results of a batch; None if it is not finished, or (with a warning) if its files are damaged."""
        if not self._has(DONE, batch):
            return None
        try:
            if all(self._has(_place(name), batch) for name in names) and self.arrays[DONE][batch]:
                return {name: self.arrays[_place(name)][batch] for name in names}
            reason = "a file is missing"
        except (RuntimeError, ValueError, OSError) as error:  # what the decoders of a broken file say
            reason = str(error)
        warnings.warn(
            f"batch {batch} of the store {self.path} is damaged, and is computed again ({reason})",
            RuntimeWarning,
            stacklevel=2,
        )
        return None

    def write(self, batch: int, results: Mapping[str, np.ndarray]) -> None:
        """Add a batch; if this fails or is killed, those before it stay as they were."""
        with _explained(self.path, "write to"):
            for name, values in results.items():
                self.arrays[_place(name)][batch] = values
            self.arrays[DONE][batch] = True

    def _has(self, name: str, batch: int) -> bool:
        """Whether a batch has its file; an array without entries has none."""
        array = self.arrays[name]
        chunk = array.metadata.encode_chunk_key((batch, *[0] * (array.ndim - 1)))
        return not array.size or (self.path / name / chunk).is_file()


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
        StoreError: something else is there, or a store that is damaged.
        ImportError: zarr is not installed.
    """
    zarr = _zarr()
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    group = None
    try:
        with _explained(path, "read"), contextlib.suppress(zarr.errors.GroupNotFoundError):
            group = zarr.open_group(path, mode="r+") if path.is_dir() else None
        if group is not None and ATTRIBUTE in group.attrs:
            made_by = group.attrs[ATTRIBUTE]
            # Arrays don't remember this from when they were made.
            arrays = {name: group[name].with_config(WRITE_ALL) for name in (DONE, *map(_place, made_by["results"]))}
            return Store(path, made_by, arrays)
    except KeyError as error:
        raise StoreError(
            f"store {path} is damaged: its array {error} is missing; bring it back, or delete the store"
        ) from None
    except ValueError as error:  # what is said of a broken zarr.json
        raise StoreError(
            f"store {path} is damaged: a zarr.json in it can't be read ({error}); bring it back, or give a new folder"
        ) from error
    raise StoreError(f"store must be a new folder or one that a sweep has made, but {path} holds something else")


def create(
    path: Path, identity: Mapping[str, Any], num_batches: int, batch_size: int, results: Mapping[str, Any]
) -> Store:
    """Make a new store for results of these shapes and dtypes (per run), unless another process is faster.

    It is made under another name and then moved, so that a half-made one is never taken for a store.
    """
    zarr = _zarr()
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    with _explained(path, "write to"):
        draft.parent.mkdir(parents=True, exist_ok=True)
        made_by = dict(identity) | {"batch_size": batch_size, "results": list(results)}
        group = zarr.create_group(draft, attributes={ATTRIBUTE: made_by})
        # Every chunk gets a file, and its checksum: what was lost is not taken for zeros.
        kept = {"config": WRITE_ALL, "compressors": zarr.codecs.ZstdCodec(checksum=True)}
        for name, result in results.items():
            shape = (num_batches, batch_size, *result.shape)
            chunks = tuple(max(1, length) for length in (1, *shape[1:]))
            group.create_array(_place(name), shape=shape, chunks=chunks, dtype=result.dtype, **kept)
        group.create_array(DONE, shape=(num_batches,), chunks=(1,), dtype=bool, fill_value=False, **kept)
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


def _place(name: str) -> str:
    """The folder of a result."""
    return PREFIX + quote(name, safe="")


def check_same(store: Store, identity: Mapping[str, Any], batch_size: int | None) -> None:
    """Raise unless the store was made by this very sweep.

    Raises:
        StoreError: with what differs.
    """
    there = {name: value for name, value in store.made_by.items() if name != "results"}
    here = dict(identity) | {"batch_size": there["batch_size"] if batch_size is None else batch_size}
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
                yield f"{label} is {_shown(there[part])} there and missing here"
            elif part not in there:
                yield f"{label} is missing there and {_shown(here[part])} here"
            else:
                yield from _differences(there[part], here[part], label)
    elif there != here:
        yield f"{name} is {_shown(there)} there and {_shown(here)} here"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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

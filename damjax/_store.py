"""The store of a sweep: a folder in the zarr format to which every finished batch is added, whole or not at all.

One array per result, (batches, batch_size, ...), chunked by batch, and an array ``done`` that says which batches are
there. Each chunk is a file that is written beside its place and then renamed, and the chunk of ``done`` comes last: so
whenever the process is killed, a batch either counts, and is complete, or does not.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORMAT = 1
DONE = "done"
ATTRIBUTE = "damjax_sweep"


class Store(NamedTuple):
    """An open store.

    Attributes:
        path: its folder.
        group: the zarr group.
    """

    path: Path
    group: Any

    @property
    def batch_size(self) -> int:
        """Runs per batch; a sweep that resumes must keep it, or its numbers would differ in the last digits."""
        return self.group.attrs[ATTRIBUTE]["batch_size"]

    def done(self) -> np.ndarray:
        """Which batches are complete, (batches,)."""
        return self.group[DONE][:]

    def read(self, batch: int) -> dict[str, np.ndarray]:
        """The results of a finished batch."""
        with _explained(self.path, "read"):
            return {name: array[batch] for name, array in self.group.arrays() if name != DONE}

    def write(self, batch: int, results: Mapping[str, np.ndarray]) -> None:
        """Add a batch; if this fails or is killed, those before it stay as they were."""
        with _explained(self.path, "write to"):
            for name, values in results.items():
                self.group[name][batch] = values
            self.group[DONE][batch] = True


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
    return {package: version(package) for package in ("damjax", "jax", "jaxlib")}


def find(path: Path) -> Store | None:
    """The store at ``path``, or None where there is nothing yet.

    Raises:
        ValueError: something else is there.
        ImportError: zarr is not installed.
    """
    zarr = _zarr()
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    group = None
    with _explained(path, "read"), contextlib.suppress(zarr.errors.GroupNotFoundError):
        group = zarr.open_group(path, mode="r+") if path.is_dir() else None
    if group is None or ATTRIBUTE not in group.attrs:
        raise ValueError(f"store must be a new folder or one that a sweep has made, but {path} holds something else")
    return Store(path, group)


def create(
    path: Path, identity: Mapping[str, Any], num_batches: int, batch_size: int, results: Mapping[str, Any]
) -> Store:
    """Make a new store for results of these shapes and dtypes (per run).

    It is made under another name and then moved, so that a half-made one is never taken for a store.
    """
    zarr = _zarr()
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    with _explained(path, "write to"):
        shutil.rmtree(draft, ignore_errors=True)
        draft.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.create_group(draft, attributes={ATTRIBUTE: dict(identity) | {"batch_size": batch_size}})
        for name, result in results.items():
            shape = (num_batches, batch_size, *result.shape)
            group.create_array(name, shape=shape, chunks=(1, *shape[1:]), dtype=result.dtype)
        group.create_array(DONE, shape=(num_batches,), chunks=(1,), dtype=bool, fill_value=False)
        draft.rename(path)
    return Store(path, zarr.open_group(path, mode="r+"))


def check_same(store: Store, identity: Mapping[str, Any], batch_size: int | None) -> None:
    """Raise unless the store was made by this very sweep.

    Raises:
        ValueError: with what differs.
    """
    there = store.group.attrs[ATTRIBUTE]
    here = dict(identity) | {"batch_size": there["batch_size"] if batch_size is None else batch_size}
    differences = list(_differences(there, here))
    if differences:
        raise ValueError(
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

"""Processes that share a store and the work: none needs another, and together they give what one alone gives."""

import errno
import fcntl
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import damjax
from damjax.sweeps import compute as _compute
from damjax.sweeps import store as _store
from damjax.sweeps.job import Job
from tests import children
from tests.cases import in_the_long_run
from tests.sweeps.test_store import KEYS, ended, snapshot
from tests.sweeps.test_sweep import noisy

RHO = [0.0, 0.25, 1.0, 2.0]
RATE = [0.5, 2.0]
MORE_KEYS = jax.random.split(jax.random.key(0), 7)
MORE_RHO = [0.0, 0.5, 0.25, 1.0, 2.0]
NUM_BATCHES = 16  # pairs of seeds


def quick(key, rho, rate):
    """Of several kinds, and quick to compile."""
    end = jnp.tanh(jax.random.normal(key, (3,)) * rate + rho)
    return {"end": end, "path": end.sum(), "steps": jnp.int32(7)}


def swept(store, run=quick, **changes):
    arguments = {"keys": KEYS, "rho": RHO, "rate": RATE, "batch_size": 2, "progress": False} | changes
    return damjax.sweep(run, store=store, **arguments)


def assert_same(results, expected):
    for name in ("end", "path", "steps", "finite"):
        np.testing.assert_array_equal(results[name], expected[name])


@pytest.fixture
def computed(monkeypatch):
    """The batches that were computed in this test, in their order."""
    batches, start = [], Job.start

    def watched(job, together):
        batches.extend(together)
        return start(job, together)

    monkeypatch.setattr(Job, "start", watched)
    return batches


def test_parts_compute_their_share_and_together_the_whole(tmp_path, computed):
    store, seen = tmp_path / "store", []
    expected = swept(None)
    for place in (2, 0):
        computed.clear()
        with pytest.warns(RuntimeWarning, match=r"runs of .*store are not there yet; see 'finite' in the result"):
            partly = swept(store, part=(place, 3))
        seen += [batch.corner for batch in computed]
        finite = partly["finite"].values
        assert finite.sum() == 2 * len(seen)
        np.testing.assert_array_equal(partly["path"].values[finite], expected["path"].values[finite])
        assert np.isnan(partly["path"].values[~finite]).all()
        np.testing.assert_array_equal(partly["steps"], np.where(finite, 7, 0))
    computed.clear()
    assert_same(swept(store, part=(1, 3)), expected)
    seen += [batch.corner for batch in computed]
    assert len(seen) == len(set(seen)) == NUM_BATCHES
    computed.clear()
    files = snapshot(store)
    for part in (None, (0, 3), (0, 5)):
        assert_same(swept(store, part=part, batch_size=None), expected)
    assert not computed
    assert snapshot(store) == files


def test_without_part_the_rest_is_computed(tmp_path, computed):
    with pytest.warns(RuntimeWarning, match="24 of the 32 runs of"):
        swept(tmp_path / "store", part=(1, 4))
    assert len(computed) == NUM_BATCHES // 4
    assert_same(swept(tmp_path / "store"), swept(None))


def test_failed_runs_of_a_part_are_told_from_missing_ones(tmp_path):
    with pytest.warns(RuntimeWarning) as warned:
        swept(tmp_path / "store", part=(0, 2), rho=[0.0, np.nan])
    texts = [str(warning.message) for warning in warned]
    assert [text.split(" runs ")[0] for text in texts] == ["8 of the 16", "4 of 16"]


@pytest.mark.parametrize("part", [(0, 0), (2, 2), (-1, 2), [0, 2], 1, (0.0, 2), (0, 1, 2), [0.1, 0.2]])
def test_a_bad_part_is_named(tmp_path, part, untyped):
    with pytest.raises(ValueError, match=r"part must be \(i, n\) with 0 <= i < n, for process i of n, but it is"):
        swept(tmp_path / "store", part=part)


def test_parts_need_a_store(monkeypatch):
    with pytest.raises(ValueError, match="store must be a folder that the 2 parts share, but it is None"):
        swept(None, part=(0, 2))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="store must be a folder on a disk that all 2 processes of jax"):
        swept(None)


@pytest.fixture
def process(monkeypatch):
    """``process(i, n)``: from now on this is process i of n of ``jax.distributed``."""

    def become(place, number):
        monkeypatch.setattr(jax, "process_index", lambda: place)
        monkeypatch.setattr(jax, "process_count", lambda: number)

    return become


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_process_does_not_wait_for_ever_for_one_that_has_failed(tmp_path, process, computed, place):
    process(place, 3)
    results = swept(tmp_path / "store")
    assert len(computed) == NUM_BATCHES
    assert_same(results, swept(tmp_path / "alone", part=(0, 1)))


def test_a_process_waits_for_what_the_others_compute(tmp_path, monkeypatch, process, computed):
    """The second one begins when the first one is done, which then computes nothing of its share."""

    def sleep(seconds):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "process_index", lambda: 1)
            assert_same(swept(tmp_path / "store"), expected)
        computed_by.append(len(computed))

    computed_by, expected = [], swept(None)
    computed.clear()
    process(0, 2)
    # No time passes.
    monkeypatch.setattr(_compute.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(_compute.time, "sleep", sleep)
    assert_same(swept(tmp_path / "store"), expected)
    assert computed_by == [NUM_BATCHES]
    assert len(computed) == NUM_BATCHES


def test_who_helps_takes_nothing_that_is_there_meanwhile(tmp_path, monkeypatch, process, computed):
    """The other one does its share while the first one has begun to do it."""
    process(0, 2)
    before = Job.start

    def start(job, together):
        started = before(job, together)
        if len(computed) == NUM_BATCHES // 2 + 3:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                swept(tmp_path / "store", part=(1, 2))
        return started

    monkeypatch.setattr(Job, "start", start)
    assert_same(swept(tmp_path / "store"), swept(tmp_path / "alone", part=(0, 1)))
    # Three batches at most are computed twice: those that were begun, and not yet in the store.
    assert len(computed) <= 2 * NUM_BATCHES + 3


def at_once(store, place, barrier):
    """One of several processes: makes a store with the others, and then extends it with them."""
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore", RuntimeWarning)
    for changes in ({"batch_size": None}, {"batch_size": None, "keys": MORE_KEYS, "rho": MORE_RHO}):
        barrier.wait(timeout=120)
        # The one that is first decides for all, whatever fits in their memory.
        swept(store, part=(place, barrier.parties), memory=memory_of(place), **changes)


def memory_of(place):
    """Bytes, of which each process happens to have others."""
    return 3000 * (place + 1)


@pytest.mark.parametrize("num_parts", [3, *in_the_long_run(8)])
def test_parts_that_start_at_once_make_and_extend_one_store(tmp_path, num_parts, computed):
    sizes = [int(swept(None, batch_size=None, memory=memory_of(place))["batch_size"]) for place in range(num_parts)]
    assert len(set(sizes)) > 1
    computed.clear()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["damjax", "damjax.sweeps.labelled", "zarr", "pytest"])
    barrier, store = context.Barrier(num_parts), tmp_path / "store"
    children = [context.Process(target=at_once, args=(store, place, barrier)) for place in range(num_parts)]
    for child in children:
        child.start()
    assert [ended(child) for child in children] == [0] * num_parts
    assert os.listdir(tmp_path) == ["store"]
    results = swept(store, keys=MORE_KEYS, rho=MORE_RHO, batch_size=None)
    first = swept(store, batch_size=None)
    assert not computed
    assert int(first["batch_size"]) in sizes
    assert_same(first, swept(None, batch_size=int(first["batch_size"])))
    expected = swept(None, keys=MORE_KEYS, rho=MORE_RHO)
    np.testing.assert_allclose(results["path"], expected["path"], rtol=1e-12)


def test_a_store_that_grows_under_a_sweep_loses_no_runs_of_either(tmp_path, monkeypatch, computed):
    """Both have runs in the same blocks: the one at work began when the store was smaller."""
    store, write, pending = tmp_path / "store", _store.Store.write, [swept]

    def write_after(opened, batch, results):
        if pending:
            pending.pop()(store, keys=MORE_KEYS, rho=MORE_RHO, batch_size=None)
        write(opened, batch, results)

    monkeypatch.setattr(_store.Store, "write", write_after)
    # Blocks of two seeds: the third one's neighbour is there only when the store has grown.
    first = swept(store, keys=KEYS[:3], rho=RHO[:3], batch_size=2)
    num_computed = len(computed)
    assert_same(swept(store, keys=KEYS[:3], rho=RHO[:3], batch_size=None), first)
    assert swept(store, keys=MORE_KEYS, rho=MORE_RHO, batch_size=None)["finite"].all()
    assert len(computed) == num_computed


def test_a_store_that_grew_since_it_was_opened_is_read_as_it_was(tmp_path):
    first = swept(tmp_path / "store", keys=KEYS[:3])
    opened = _store.find(tmp_path / "store")
    assert opened is not None
    swept(tmp_path / "store", keys=MORE_KEYS, rho=MORE_RHO)
    results, done = opened.everything()
    assert done.shape == (4, 2, 3)
    assert done.all()
    np.testing.assert_array_equal(results["path"], first["path"])
    for axis, (dim, labels) in opened.coordinates().items():
        assert first[axis].dims == (dim,)
        np.testing.assert_array_equal(labels, first[axis])


def growing(store, place):
    """A sweep whose values are its own, again and again with more of them, in blocks that it shares with others."""
    jax.config.update("jax_enable_x64", True)
    for number in range(1, 7):
        rho = [float(value) for value in range(100 * place, 100 * place + number)]
        swept(store, rho=rho, rate=[1.0], batch_size=None)


@pytest.mark.long
def test_sweeps_that_extend_one_store_at_once_lose_nothing(tmp_path, computed):
    context, store, num_sweeps = multiprocessing.get_context("forkserver"), tmp_path / "store", 4
    # Blocks of three values.
    swept(store, rho=[-1.0, -2.0, -3.0], rate=[1.0], batch_size=12)
    children = [context.Process(target=growing, args=(store, place)) for place in range(num_sweeps)]
    for child in children:
        child.start()
    assert [ended(child) for child in children] == [0] * num_sweeps
    assert os.listdir(tmp_path) == ["store"]
    computed.clear()
    for place in range(num_sweeps):
        growing(store, place)
    assert not computed


def open_after(begun, store):
    """Say that this process is at work, and open a store."""
    begun.set()
    damjax.open_sweep(store)


def test_who_finds_a_store_being_replaced_waits_for_it(tmp_path):
    """Between two renames there is no store, and yet it is neither taken for killed nor for none."""
    context = multiprocessing.get_context("forkserver")
    first, store, aside = swept(tmp_path / "store"), tmp_path / "store", tmp_path / ".store.0.old"
    begun = context.Event()
    with _store._lock(store, exclusive=True):
        store.rename(aside)
        child = context.Process(target=open_after, args=(begun, store))
        child.start()
        assert begun.wait(timeout=120)
        time.sleep(0.5)
        assert child.is_alive()
        assert not store.exists()
        aside.rename(store)
    assert ended(child) == 0
    assert damjax.open_sweep(store).identical(first)


def test_a_disk_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def flock(file, kind):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    store = tmp_path / "store"
    monkeypatch.setattr(fcntl, "flock", flock)
    swept(store)
    with pytest.warns(RuntimeWarning, match=r"the disk of .*store knows no locks \(flock\); while a sweep extends"):
        swept(store, keys=MORE_KEYS)
    monkeypatch.setattr(fcntl, "flock", lambda file, kind: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="cannot read the store: broken"):
        swept(store)


def counting(key, rho, rate):
    return noisy(key, rho, rate) | {"steps": jnp.int32(7)}


HOST = """
import os, sys, time
from pathlib import Path
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import damjax
damjax.use_every_core()
store, out = sys.argv[1:]
jax.distributed.initialize()
process = jax.process_index()
from damjax.sweeps.store import Store
from tests.sweeps import test_parts
from tests.sweeps.test_parts import assert_same
assert jax.process_count() == 2 and len(jax.local_devices()) == len(os.sched_getaffinity(0))
def swept(store, **changes):
    return test_parts.swept(store, test_parts.counting, **changes)
alone = swept(f"{store}-alone-{process}", part=(0, 1))
# A store that both share, which the second call only reads; folders of their own; and as much memory as each has.
for folder in (store, store, f"{store}-own-{process}"):
    assert_same(swept(folder), alone)
sized = swept(f"{store}-sized", batch_size=None, memory=10000 << 20 * process)
np.testing.assert_allclose(sized["path"], alone["path"], rtol=1e-12)
# One fails in the middle of its share, while the other is in the middle of its own; that one does not wait for ever.
write, written, failed = Store.write, [], Path(f"{store}-failed")
def failing(*arguments):
    while len(written) == 3 and not failed.exists():
        if process == 1:
            failed.touch()
            raise OSError("disk full")
        time.sleep(0.01)
    written.append(arguments)
    write(*arguments)
Store.write = failing
try:
    assert_same(swept(f"{store}-failing"), alone)
except OSError as error:
    assert process == 1 and str(error) == "disk full"
else:
    assert process == 0
# Then both go on.
Store.write = write
assert_same(swept(f"{store}-failing"), alone)
alone.to_netcdf(f"{out}-{process}.nc")
"""


def slurm_tasks(number):
    """The environment of each task of a job of SLURM on this host, for jax.distributed to find."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(number)}
    return [
        os.environ | job | {"JAX_COORDINATOR_PORT": port, "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)}
        for task in range(number)
    ]


@pytest.mark.long
def test_two_hosts_give_the_numbers_of_one(tmp_path):
    command = [sys.executable, "-c", HOST, str(tmp_path / "store"), str(tmp_path / "results")]
    hosts = [subprocess.Popen(command, env=environment) for environment in slurm_tasks(2)]
    deadline = time.monotonic() + 300
    # jax lets the other one wait at the end when one fails.
    while None in (codes := [host.poll() for host in hosts]) and not any(codes) and time.monotonic() < deadline:
        time.sleep(0.1)
    for host in hosts:
        host.kill()
    assert codes == [0, 0]
    expected = swept(None, counting)
    for process in range(2):
        results = xarray.load_dataset(tmp_path / f"results-{process}.nc")
        for name in ("end", "path"):
            np.testing.assert_allclose(results[name], expected[name], rtol=1e-12)


@pytest.mark.long
def test_the_slurm_example_makes_a_figure(tmp_path):
    """The script as it stands, with an srun that starts its two tasks here."""
    srun = tmp_path / "srun"
    srun.write_text(
        '#!/bin/bash\nfor i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & done\n'
        "wait -n && wait -n || { kill $(jobs -p); exit 1; }\n"
    )
    srun.chmod(0o755)
    out = tmp_path / "figures"
    environment = slurm_tasks(2)[0] | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "STORE": str(tmp_path / "store"),
    }
    command = ["bash", "paper_figs/slurm.sh", "perfect_accuracy", "--quick", "--out", str(out)]
    done = children.run(command, timeout=600, env=environment)
    assert done.stdout.count("perfect_accuracy.csv") == 1
    assert (out / "perfect_accuracy.png").exists()
    assert (tmp_path / "store" / "perfect_accuracy").is_dir()

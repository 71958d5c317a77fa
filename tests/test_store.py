"""Stores: whatever stops a sweep, and whenever, nothing that was finished is lost and nothing foreign is taken."""

import errno
import functools
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

import damjax
from damjax import _hosts, _store
from damjax.sweep import _work
from tests.cases import in_the_long_run

KEYS = jax.random.split(jax.random.key(0), 4)
RHO = np.linspace(0, 1, 100)
LIMIT = 120  # seconds, of any child


def slow(key, rho):
    """A few milliseconds of work a batch."""
    start = jax.random.normal(key, (64,))
    end, _ = jax.lax.scan(lambda x, _: (jnp.sin(x + rho), None), start, length=3000)
    return {"end": end, "mean": end.mean()}


NUM_BATCHES = len(RHO) * len(KEYS) // 2


def kept(store, run=slow, **changes):
    arguments = {"keys": KEYS, "rho": RHO, "batch_size": 2, "progress": False} | changes
    return damjax.sweep(run, store=store, **arguments)


def job(store):
    jax.config.update("jax_enable_x64", True)
    kept(store)


def num_done(store):
    opened = _store.find(Path(store))
    return 0 if opened is None else int(np.sum(np.asarray(zarr.open_array(opened.path / "done")[:])))


def assert_same(found, expected):
    for name in ("end", "mean", "finite"):
        np.testing.assert_array_equal(found[name], expected[name])


def ended(process):
    """The exit code of a process that has to end by itself, or soon after it was killed."""
    process.join(timeout=LIMIT)
    if process.exitcode is None:
        process.kill()
        pytest.fail(f"a child was still at work after {LIMIT} s")
    return process.exitcode


@pytest.mark.parametrize("num_kills", [5, *in_the_long_run(22)])
def test_killed_at_any_moment_it_resumes_where_it_was(tmp_path, num_kills):
    # Children of a server that has imported everything, but not started jax: each begins its sweep at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["damjax", "damjax.labelled", "zarr", "pytest"])
    times, num_killed, num_midway = random.Random(0), 0, 0
    stores = [tmp_path / "store0"]
    while num_killed < num_kills:
        store, before = stores[-1], num_done(stores[-1])
        child = context.Process(target=job, args=(store,))
        child.start()
        # Half of the kills hit the start, half a sweep at work.
        deadline = time.monotonic() + LIMIT
        while num_killed % 2 and child.is_alive() and num_done(store) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(times.uniform(0, 0.2))
        child.kill()
        code, after = ended(child), num_done(store)
        assert after >= before
        # A child that fails by itself would fail for ever.
        assert code in (0, -signal.SIGKILL)
        if code:
            num_killed += 1
            num_midway += 0 < after < NUM_BATCHES
        else:
            stores.append(tmp_path / f"store{len(stores)}")
    assert num_midway > num_kills // 3
    expected = kept(None)
    for store in stores:
        assert_same(kept(store), expected)
        assert num_done(store) == NUM_BATCHES


def test_a_child_that_fails_or_hangs_ends_the_wait(monkeypatch):
    """What the test above counts on."""
    context = multiprocessing.get_context("forkserver")
    failing = context.Process(target=os._exit, args=(3,))
    failing.start()
    assert ended(failing) == 3
    monkeypatch.setattr("tests.test_store.LIMIT", 0.2)
    hanging = context.Process(target=time.sleep, args=(600,))
    hanging.start()
    with pytest.raises(pytest.fail.Exception, match=r"still at work after 0\.2 s"):
        ended(hanging)
    hanging.join(timeout=60)
    assert hanging.exitcode == -signal.SIGKILL


def snapshot(store):
    """Every file of a store with its time: what is not written again keeps both."""
    return {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}


def test_a_finished_store_is_only_read(tmp_path):
    first = kept(tmp_path / "store")
    files = snapshot(tmp_path / "store")
    assert_same(kept(tmp_path / "store", progress=True), first)
    assert snapshot(tmp_path / "store") == files


def test_batches_that_are_missing_are_computed_and_no_others(tmp_path):
    store = tmp_path / "store"
    expected = kept(store, rho=RHO[:6])
    zarr.open_array(store / "done")[5] = False
    zarr.open_array(store / "result.end")[5] = np.nan  # half written when it was killed
    files = snapshot(store)
    assert_same(kept(store, rho=RHO[:6]), expected)
    after = snapshot(store)
    changed = [path.relative_to(store).parts for path in after if files.get(path) != after[path]]
    assert sorted(parts[0] for parts in changed) == ["done", "result.end", "result.mean"]
    assert all("5" in parts for parts in changed)


def other(key, rho):
    return slow(key, 2 * rho)


def make_run(offset):
    constant = jnp.arange(3.0) + offset

    def run(key, rho):
        return rho + constant

    return run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": other}, "function name is slow there and other here; function program is"),
        ({"rho": RHO[:5]}, r"axis rho is 6 values from 0\.0 to 0\.\d+ \(\w+\) there and 5 values from"),
        ({"rho": RHO[:6] ** 2}, "axis rho is 6 values from"),
        ({"sigma": [1.0], "run": lambda key, rho, sigma: slow(key, rho)}, "axis sigma is missing there"),
        ({"keys": KEYS[:3]}, "seeds number is 4 there and 3 here"),
        ({"keys": KEYS[::-1]}, "seeds digest is"),
        ({"batch_size": 3}, "batch_size is 2 there and 3 here"),
        ({"vectorize": jax.vmap}, "vectorize is vmap_last there and vmap here"),
    ],
)
def test_a_store_of_another_sweep_is_refused(tmp_path, changes, message):
    kept(tmp_path / "store", rho=RHO[:6])
    with pytest.raises(damjax.StoreError, match=f"belongs to another sweep: .*{message}"):
        kept(tmp_path / "store", **{"rho": RHO[:6]} | changes)


def test_a_store_of_another_constant_or_version_is_refused(tmp_path, monkeypatch):
    kept(tmp_path / "store", make_run(0), rho=RHO[:2])
    kept(tmp_path / "store", make_run(0), rho=RHO[:2])
    with pytest.raises(damjax.StoreError, match="function program is"):
        kept(tmp_path / "store", make_run(1), rho=RHO[:2])
    monkeypatch.setattr("damjax._work.versions", lambda: {"damjax": "99.0"})
    with pytest.raises(damjax.StoreError, match=r"version of damjax is \d+\.\d+\.\d+ there and 99\.0 here"):
        kept(tmp_path / "store", make_run(0), rho=RHO[:2])


def test_the_batch_size_of_a_store_is_kept_when_none_is_given(tmp_path):
    kept(tmp_path / "store", rho=RHO[:6])
    assert int(kept(tmp_path / "store", rho=RHO[:6], batch_size=None)["batch_size"]) == 2


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "all"])
def test_a_damaged_batch_is_computed_again(tmp_path, damage):
    store = tmp_path / "store"
    expected = kept(store, rho=RHO[:6])
    chunk = store / "result.end" / "c" / "5" / "0" / "0"
    content = chunk.read_bytes()
    if damage == "missing":
        chunk.unlink()
    elif damage == "all":
        shutil.rmtree(store / "result.end" / "c")
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        chunk.write_bytes(content[:middle] if damage == "truncated" else flipped)
    with pytest.warns(RuntimeWarning, match="is damaged, and is computed again"):
        assert_same(kept(store, rho=RHO[:6]), expected)
    assert_same(kept(store, rho=RHO[:6]), expected)


def test_a_damaged_store_is_reported(tmp_path):
    kept(tmp_path / "store", rho=RHO[:2])
    shutil.rmtree(tmp_path / "store" / "result.end")
    with pytest.raises(damjax.StoreError, match=r"is damaged: its array .*result\.end.* is missing"):
        kept(tmp_path / "store", rho=RHO[:2])


@pytest.mark.parametrize(
    ("name", "content"), [("zarr.json", ""), ("done/zarr.json", "{"), ("result.end/zarr.json", "{}")]
)
def test_a_damaged_description_is_reported(tmp_path, name, content):
    kept(tmp_path / "store", rho=RHO[:2])
    (tmp_path / "store" / name).write_text(content)
    with pytest.raises(damjax.StoreError, match=r"is damaged: a zarr\.json in it can't be read .*; bring it back"):
        kept(tmp_path / "store", rho=RHO[:2])


def test_results_of_any_name_and_zeros_are_kept(tmp_path):
    def run(key, rho):
        return {"train/loss": rho, "..": 2 * rho, "done": 0 * rho, "flags": jnp.zeros((0, 2), jnp.bfloat16)}

    found = [kept(tmp_path / "store", run, rho=[1.0, 2.0]) for _ in range(2)]
    for again in found:
        np.testing.assert_array_equal(again["train/loss"], [[1.0] * 4, [2.0] * 4])
        np.testing.assert_array_equal(again[".."], [[2.0] * 4, [4.0] * 4])
        np.testing.assert_array_equal(again["done"], 0)
        assert again["flags"].dtype == np.float32


def test_what_a_store_holds_is_found_again_in_the_order_of_the_axes(tmp_path):
    def run(key, rho, rate):
        return rho - rate

    def swept(**axes):
        return damjax.sweep(run, keys=KEYS, store=tmp_path / "store", progress=False, **axes)

    swept(rho=[1.0, 2.0], rate=[3.0, 4.0, 5.0])
    with pytest.raises(
        damjax.StoreError, match=r"dimensions is \[\['rho'\], \['rate'\]\] there and \[\['rate'\], \['rho'\]\]"
    ):
        swept(rate=[3.0, 4.0, 5.0], rho=[1.0, 2.0])


def test_objects_as_axes_make_one_store_in_every_process(tmp_path):
    """Nothing of an address gets into the store's description."""

    class Scale:
        def __call__(self, x):
            return 3 * x

    def described(factories):
        work = _work(lambda key, f: f(2.0), KEYS, {"f": factories}, (), (), None, None)
        return work.identity()["axis"]

    assert described([functools.partial(jnp.multiply, 2.0), Scale()]) == described(
        [functools.partial(jnp.multiply, 2.0), Scale()]
    )


@pytest.mark.long
def test_two_processes_that_start_at_once_share_a_store(tmp_path):
    context = multiprocessing.get_context("forkserver")
    both = [context.Process(target=job, args=(tmp_path / "store",)) for _ in range(2)]
    for process in both:
        process.start()
    assert [ended(process) for process in both] == [0, 0]
    assert os.listdir(tmp_path) == ["store"]
    assert num_done(tmp_path / "store") == NUM_BATCHES


def meanwhile(monkeypatch, act):
    """Let something happen once, after a sweep has found no store and before it makes one."""
    pending = [act]

    def agree(problem, **numbers):
        if pending:
            pending.pop()()
        return agreed(problem, **numbers)

    agreed = _hosts.agree
    monkeypatch.setattr(_hosts, "agree", agree)


def test_a_store_that_another_sweep_makes_meanwhile_is_refused(tmp_path, monkeypatch):
    store = tmp_path / "store"
    meanwhile(monkeypatch, lambda: kept(store, other, rho=RHO[:2]))
    with pytest.raises(damjax.StoreError, match="belongs to another sweep: function name is other there and slow here"):
        kept(store, rho=RHO[:2])


def test_a_store_that_is_made_meanwhile_with_another_batch_size_is_refused(tmp_path, monkeypatch):
    store = tmp_path / "store"
    meanwhile(monkeypatch, lambda: kept(store, rho=RHO[:2], batch_size=3))
    with pytest.raises(damjax.StoreError, match="was made meanwhile with batch_size 3, not 2; call again"):
        kept(store, rho=RHO[:2])


def test_something_else_is_never_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(damjax.StoreError, match="must be a new folder or one that a sweep has made"):
        kept(tmp_path, rho=RHO[:2])
    with pytest.raises(damjax.StoreError, match="must be a new folder or one that a sweep has made"):
        kept(tmp_path / "notes.txt", rho=RHO[:2])
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_refuses_a_store_can_be_caught_by_name_or_as_bad_input():
    assert issubclass(damjax.StoreError, ValueError)
    with pytest.raises(damjax.StoreError, match="store must be a folder of this machine or of a disk that it shares"):
        kept("s3://bucket/store")


@pytest.mark.long
def test_a_full_disk_is_reported_and_what_was_done_is_kept(tmp_path, monkeypatch):
    store, written = tmp_path / "store", []
    put = LocalStore.set

    async def limited(self, key, value, *arguments):
        written.append(key)
        if len(written) > 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return await put(self, key, value, *arguments)

    with monkeypatch.context() as full:
        full.setattr(LocalStore, "set", limited)
        with pytest.raises(OSError, match=r"No space left on device.*Every batch that was finished before is kept"):
            kept(store)
    assert 0 < num_done(store) < NUM_BATCHES
    assert_same(kept(store), kept(None))


def test_a_folder_that_may_not_be_written_to_is_reported(tmp_path):
    # Not even the superuser can make folders here.
    for place in ("/proc/damjax", "/dev/null/store"):
        with pytest.raises(OSError, match="cannot write to the store"):
            kept(place, rho=RHO[:2])


def test_without_zarr_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install 'damjax\[sweeps\]'"):
        kept(tmp_path / "store", rho=RHO[:2])

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
import xarray
import zarr
from zarr.storage import LocalStore

import damjax
from damjax.sweeps import store as _store
from damjax.sweeps.job import Job
from tests.cases import in_the_long_run

KEYS = jax.random.split(jax.random.key(0), 4)
RHO = np.linspace(0, 1, 100)
LIMIT = 120  # seconds, of any child


def slow(key, rho):
    """A few milliseconds of work a batch."""
    start = jax.random.normal(key, (64,))
    end, _ = jax.lax.scan(lambda x, _: (jnp.sin(x + rho), None), start, length=3000)
    return {"end": end, "mean": end.mean()}


NUM_RUNS = len(RHO) * len(KEYS)


def kept(store, run=slow, **changes):
    arguments = {"keys": KEYS, "rho": RHO, "batch_size": 2, "progress": False} | changes
    return damjax.sweep(run, store=store, **arguments)


def job(store):
    jax.config.update("jax_enable_x64", True)
    kept(store)


def num_done(store):
    opened = _store.find(Path(store))
    return 0 if opened is None else int(np.sum(np.asarray(opened.arrays["done"][:])))


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


@pytest.mark.parametrize("num_kills", [3, *in_the_long_run(12)])
def test_killed_at_any_moment_it_resumes_where_it_was(tmp_path, num_kills):
    # Children of a server that has imported everything, but not started jax: each begins its sweep at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["damjax", "damjax.sweeps.labelled", "zarr", "pytest"])
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
            num_midway += 0 < after < NUM_RUNS
        else:
            stores.append(tmp_path / f"store{len(stores)}")
    assert num_midway > num_kills // 3
    expected = kept(None)
    for store in stores:
        assert_same(kept(store), expected)
        assert num_done(store) == NUM_RUNS


def test_a_child_that_fails_or_hangs_ends_the_wait(monkeypatch):
    """What the test above counts on."""
    context = multiprocessing.get_context("forkserver")
    failing = context.Process(target=os._exit, args=(3,))
    failing.start()
    assert ended(failing) == 3
    monkeypatch.setattr("tests.sweeps.test_store.LIMIT", 0.2)
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
    # Setting 2, seeds 2 and 3: half written when it was killed.
    zarr.open_array(store / "done")[2, 2:] = False
    zarr.open_array(store / "end")[2, 2:] = np.nan
    files = snapshot(store)
    assert_same(kept(store, rho=RHO[:6]), expected)
    after = snapshot(store)
    changed = [path.relative_to(store).parts for path in after if files.get(path) != after[path]]
    assert sorted(changed) == [("done", "c", "2", "1"), ("end", "c", "2", "1", "0"), ("mean", "c", "2", "1")]


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
        ({"sigma": [1.0], "run": lambda key, rho, sigma: slow(key, rho)}, "axis sigma is missing there"),
        ({"keys": KEYS[::-1]}, "seeds have is the digest .* of the first 4 there and"),
        ({"keys": jax.random.split(jax.random.key(1), 2)}, "seeds have is the digest .* of the first 2 there and"),
        ({"batch_size": 3}, "batch_size is 2 there and 3 here"),
        ({"vectorize": lambda run: jax.vmap(run)}, r"vectorize is vmap\w* there and <lambda> here"),
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
    monkeypatch.setattr("damjax.sweeps.job.versions", lambda: {"damjax": "99.0"})
    with pytest.raises(damjax.StoreError, match=r"version of damjax is \d+\.\d+\.\d+ there and 99\.0 here"):
        kept(tmp_path / "store", make_run(0), rho=RHO[:2])


def test_the_batch_size_of_a_store_is_kept_when_none_is_given(tmp_path):
    kept(tmp_path / "store", rho=RHO[:6])
    assert int(kept(tmp_path / "store", rho=RHO[:6], batch_size=None)["batch_size"]) == 2


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "all"])
def test_a_damaged_batch_is_computed_again(tmp_path, damage):
    store = tmp_path / "store"
    expected = kept(store, rho=RHO[:6])
    chunk = store / "end" / "c" / "2" / "1" / "0"
    content = chunk.read_bytes()
    if damage == "missing":
        chunk.unlink()
    elif damage == "all":
        shutil.rmtree(store / "end" / "c")
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        chunk.write_bytes(content[:middle] if damage == "truncated" else flipped)
    with pytest.warns(RuntimeWarning, match="is damaged, and is computed again"):
        assert_same(kept(store, rho=RHO[:6]), expected)
    assert_same(kept(store, rho=RHO[:6]), expected)


def test_an_array_that_is_missing_is_computed_again(tmp_path):
    expected = kept(tmp_path / "store", rho=RHO[:2])
    shutil.rmtree(tmp_path / "store" / "end")
    with pytest.warns(RuntimeWarning, match="is damaged, and is computed again"):
        assert_same(kept(tmp_path / "store", rho=RHO[:2]), expected)


@pytest.mark.parametrize("content", ["", "{"])
def test_a_damaged_description_is_reported(tmp_path, content):
    kept(tmp_path / "store", rho=RHO[:2])
    (tmp_path / "store" / "zarr.json").write_text(content)
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


def growing(key, rho, algorithm, rate):
    """Of several kinds: numbers that are told apart to the last bit, flags, and a result with an axis of its own."""
    offset = {"OGD": 0.0, "C-DOGD": 1.0, "DAM-TOGD": 2.0}[algorithm]
    return {
        "regret": rho * jnp.arange(3.0) + offset,
        "loss": rate + jax.random.normal(key),
        "steps": jnp.int32(7),
        "ended": rho > 0,
    }


def grown(store, **changes):
    arguments = {
        "keys": KEYS,
        "rho": [0.0, 1.0],
        "algorithm": ["OGD", "C-DOGD"],
        "rate": [0.5, 2.0],
        "zipped": [("algorithm", "rate")],
        "dims": {"regret": ("horizon",)},
        "batch_size": 3,
        "progress": False,
    }
    return damjax.sweep(growing, store=store, **arguments | changes)


MORE = {
    "seeds": {"keys": jax.random.split(jax.random.key(0), 7)},
    "values between": {"rho": [0.0, 0.25, 1.0, 0.5]},
    "other values": {"rho": [3.0, 4.0]},
    "a static one": {"algorithm": ["DAM-TOGD", "OGD", "C-DOGD"], "rate": [4.0, 0.5, 2.0]},
    "fewer": {"rho": [1.0], "keys": KEYS[:2]},
    "all of it": {
        "keys": jax.random.split(jax.random.key(0), 5),
        "rho": [2.0, 1.0, 0.0],
        "algorithm": ["DAM-TOGD", "OGD"],
        "rate": [1.0, 0.5],
    },
    "names of axes": {"dims": {"regret": "step"}},
}


@pytest.mark.parametrize("changes", MORE.values(), ids=MORE)
def test_a_store_is_extended_and_keeps_what_it_holds(tmp_path, monkeypatch, changes):
    assert jnp.array_equal(jax.random.key_data(MORE["seeds"]["keys"][:4]), jax.random.key_data(KEYS))
    store = tmp_path / "store"
    first, expected = grown(store), grown(None, **changes)
    computed = []
    start = Job.start
    monkeypatch.setattr(Job, "start", lambda job, batches: computed.extend(batches) or start(job, batches))
    after = grown(store, **changes)
    size = int(first["batch_size"])
    new = expected.sizes["rho"] * expected.sizes["algorithm"] * expected.sizes["seed"]
    old = np.prod([np.isin(after[dim], first[dim]).sum() for dim in ("rho", "algorithm", "seed")])
    # What is new, and at most what shares a block with it.
    assert new - old <= len(computed) * size if new > old else not computed
    for name in expected.data_vars:
        assert after[name].dims == expected[name].dims
        np.testing.assert_allclose(after[name], expected[name], rtol=1e-14)
    # Whoever asked before still finds the same bits, and nothing is computed for it.
    monkeypatch.setattr(Job, "start", None)
    assert grown(store).identical(first)
    assert grown(store, **changes).identical(after)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.filterwarnings("error")
def test_xarray_opens_a_store_while_it_grows_and_afterwards(tmp_path, monkeypatch):
    store, seen = tmp_path / "store", []
    write = _store.Store.write

    def watched(opened, batch, results):
        seen.append(xarray.open_zarr(store).load())
        write(opened, batch, results)

    monkeypatch.setattr(_store.Store, "write", watched)
    found = grown(store)
    counts = [int(dataset["done"].sum()) for dataset in seen]
    assert counts == sorted(set(counts))
    assert counts[0] == 0
    for dataset in (*seen, xarray.open_zarr(store).load()):
        done = dataset["done"].values
        assert dataset["regret"].dims == ("rho", "algorithm", "seed", "horizon")
        for name in ("loss", "regret", "steps", "ended"):
            np.testing.assert_array_equal(dataset[name].values[done], found[name].values[done])
        assert np.isnan(dataset["loss"].values[~done]).all()
        for name in found.coords:
            assert dataset[name].dims == found[name].dims
            np.testing.assert_array_equal(dataset[name], found[name])
    assert xarray.open_zarr(store)["done"].all()


def test_a_store_is_read_without_its_function_and_by_any_version(tmp_path, monkeypatch):
    store = tmp_path / "store"
    found = grown(store)
    monkeypatch.setattr("damjax.sweeps.job.versions", None)
    assert damjax.open_sweep(store).identical(found)
    assert damjax.open_sweep(str(store)).sweep.mean()["loss"].dims == ("rho", "algorithm")
    shutil.rmtree(store / "loss" / "c" / "1")
    with pytest.warns(RuntimeWarning) as warned:
        partly = damjax.open_sweep(store)
    assert "8 of the 16 runs of" in str(warned[-1].message)
    np.testing.assert_array_equal(partly["finite"].sel(rho=0.0), True)
    np.testing.assert_array_equal(partly["finite"].sel(rho=1.0), False)
    assert np.isnan(partly["loss"].sel(rho=1.0)).all()
    for nothing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(damjax.StoreError, match="a sweep has made"):
            damjax.open_sweep(nothing)


def test_what_was_never_asked_for_is_no_number(tmp_path):
    """Neither in a block of its own, nor in one with runs that are there."""
    store = tmp_path / "store"
    grown(store, keys=KEYS[:1], rho=[0.0, 1.0, 2.0])
    grown(store, keys=KEYS, rho=[3.0])
    for dataset in (xarray.open_zarr(store).load(), None):
        if dataset is None:
            with pytest.warns(RuntimeWarning, match=r"18 of the 32 runs of .* are not there yet"):
                dataset = damjax.open_sweep(store)
        there = np.zeros((4, 2, 4), bool)
        there[:3, :, 0] = there[3] = True
        np.testing.assert_array_equal(np.isfinite(dataset["loss"]), there)
        np.testing.assert_array_equal(dataset["done" if "done" in dataset else "finite"], there)


def test_a_store_whose_replacement_was_killed_is_found_again(tmp_path, monkeypatch):
    """Between the two renames that put a larger store into its place."""
    store = tmp_path / "store"
    first = grown(store)
    rename = Path.rename

    def killed(path, target):
        if path.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            grown(store, **MORE["seeds"])
    assert not store.exists()
    assert damjax.open_sweep(store).identical(first)
    assert grown(store).identical(first)


def test_a_store_of_the_format_before_is_refused(tmp_path):
    zarr.create_group(tmp_path / "store", attributes={"damjax_sweep": {"function": {"name": "slow"}}})
    with pytest.raises(damjax.StoreError, match="was made by another version of damjax, in the format 1, not 2"):
        kept(tmp_path / "store")


def test_a_store_gets_no_values_of_another_kind(tmp_path):
    def run(key, rho):
        return jnp.asarray(rho, float)

    damjax.sweep(run, keys=KEYS, rho=[0.0, 1.0], store=tmp_path / "store", progress=False)
    with pytest.raises(damjax.StoreError, match=r"axis rho is float64\[\] there and int64\[\] here"):
        damjax.sweep(run, keys=KEYS, rho=[0, 2], store=tmp_path / "store", progress=False)


def test_a_store_gets_no_results_of_another_shape(tmp_path):
    """New values of a static axis have a program of their own, which nothing in the store vouches for."""

    def run(key, size):
        return jnp.zeros(size)

    def swept(size):
        return damjax.sweep(run, keys=KEYS, size=[size], static=["size"], store=tmp_path / "store", progress=False)

    swept(2)
    with pytest.raises(
        damjax.StoreError, match=r"its results hold 'value' as float64 \(2,\), this sweep's as .*\(3,\)"
    ):
        swept(3)


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
        job_of = Job(lambda key, f: f(2.0), KEYS, {"f": factories})
        return job_of.identity()["axis"], job_of.contents

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
    assert num_done(tmp_path / "store") == NUM_RUNS


def meanwhile(monkeypatch, act):
    """Let something happen once, after a sweep has seen no store and before it makes one."""
    pending, fit = [act], Job.fit

    def fit_after(job, batch_size, memory):
        if pending:
            pending.pop()()
        return fit(job, batch_size, memory)

    monkeypatch.setattr(Job, "fit", fit_after)


def test_a_store_that_another_sweep_makes_meanwhile_is_refused(tmp_path, monkeypatch):
    store = tmp_path / "store"
    meanwhile(monkeypatch, lambda: kept(store, other, rho=RHO[:2]))
    with pytest.raises(damjax.StoreError, match="belongs to another sweep: function name is other there and slow here"):
        kept(store, rho=RHO[:2])


def test_the_batch_size_of_a_store_that_is_made_meanwhile_is_taken(tmp_path, monkeypatch):
    """Where the user gave none; else it is refused by name."""
    for batch_size in (None, 2):
        store = tmp_path / f"store{batch_size}"
        with monkeypatch.context() as patch:
            meanwhile(patch, lambda store=store: kept(store, rho=RHO[:2], batch_size=1))
            if batch_size is None:
                assert int(kept(store, rho=RHO[:2], batch_size=None)["batch_size"]) == 1
            else:
                with pytest.raises(damjax.StoreError, match="batch_size is 1 there and 2 here"):
                    kept(store, rho=RHO[:2], batch_size=batch_size)


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
    assert 0 < num_done(store) < NUM_RUNS
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

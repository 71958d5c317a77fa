"""Sweeps against plain loops: every run the same, wherever, however and how often it is computed."""

import dataclasses
import functools
import math
import re
import sys
import warnings
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import channels
from damjax.sweeps import job as _job
from damjax.sweeps import programs as _programs
from damjax.sweeps.job import Job
from damjax.sweeps.plan import Table, make_plan
from tests import children

KEYS = jax.random.split(jax.random.key(0), 5)
RHO = [0.0, 0.25, 1.0]
RATE = [0.5, 2.0]


def noisy(key, rho, rate):
    """Transcendental functions, a scan and a small matrix product: whatever may round differently in company."""
    start = jax.random.normal(key, (3,))
    matrix = jax.random.normal(jax.random.fold_in(key, 1), (3, 3))
    end, path = jax.lax.scan(lambda x, _: (jnp.tanh(matrix @ x * rate + rho), jnp.exp(-x).sum()), start, length=20)
    return {"end": end, "path": path.sum()}


def loops(run, keys, *axes):
    """The sweep as nested loops, (axes.., S, ...)."""
    compiled = jax.jit(run)
    found = [
        [compiled(key, *setting) for key in keys]
        for setting in zip(*map(np.ravel, np.meshgrid(*axes, indexing="ij")), strict=True)
    ]
    shape = (*(len(axis) for axis in axes), len(keys))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(leaf for row in found for leaf in row))
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), stacked)


def quiet(run, **arguments):
    options: dict[str, Any] = {"progress": False, **arguments}
    return damjax.sweep(run, **options)


@pytest.mark.parametrize("vectorize", [None, jax.vmap])
@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_equals_nested_loops(batch_size, vectorize):
    found = quiet(noisy, keys=KEYS, rho=RHO, rate=RATE, batch_size=batch_size, vectorize=vectorize)
    expected = loops(noisy, KEYS, RHO, RATE)
    assert found["end"].dims == ("rho", "rate", "seed", "end_0")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-10)
    np.testing.assert_array_equal(found["rho"], RHO)
    assert bool(found["finite"].all())


@pytest.mark.parametrize("double", [False, True])
def test_keeps_the_precision_that_jax_has(double):
    jax.config.update("jax_enable_x64", double)
    found = quiet(noisy, keys=KEYS, rho=RHO, rate=RATE)
    assert found["path"].dtype == (np.float64 if double else np.float32)
    np.testing.assert_allclose(found["path"], loops(noisy, KEYS, RHO, RATE)["path"], rtol=1e-10 if double else 1e-5)


def test_any_run_can_be_redone_alone_bit_for_bit():
    for batch_size in (1, 7, 13):
        arguments = {"keys": KEYS, "rho": RHO, "rate": RATE}
        found = quiet(noisy, batch_size=batch_size, **arguments)
        for setting in (0, 3, 5):
            at = {"rho": RHO[setting // 2], "rate": RATE[setting % 2], "seed": setting % 5}
            again = damjax.rerun(noisy, at=at, batch_size=int(found["batch_size"]), **arguments)
            for name, values in again.items():
                np.testing.assert_array_equal(values, found[name].sel(at))


def test_zipped_axes_go_together_and_names_are_static():
    def run(key, algorithm, rate, rho):
        assert isinstance(algorithm, str)
        return rate + rho + (100.0 if algorithm == "OGD" else 0.0) + 0 * jax.random.normal(key)

    found = quiet(run, keys=KEYS, algorithm=["OGD", "C-DOGD"], rate=[1.0, 2.0], rho=RHO, zipped=[("algorithm", "rate")])
    assert found["value"].dims == ("algorithm", "rho", "seed")
    np.testing.assert_array_equal(found["rate"].sel(algorithm="C-DOGD"), 2.0)
    np.testing.assert_array_equal(found["value"].isel(seed=0), np.array([[101.0], [2.0]]) + np.array(RHO))
    again = damjax.rerun(
        run,
        at={"algorithm": "C-DOGD", "rho": 1.0, "seed": 0},
        batch_size=int(found["batch_size"]),
        keys=KEYS,
        algorithm=["OGD", "C-DOGD"],
        rate=[1.0, 2.0],
        rho=RHO,
        zipped=[("algorithm", "rate")],
    )
    assert again == 3.0


def test_axes_of_arrays_functions_and_static_numbers_and_data_of_each_seed():
    tables = np.arange(12.0).reshape(3, 2, 2)
    offsets = np.arange(5.0)

    def run(seed, table, factory, size):
        return {"total": table.sum() + seed["offset"], "scaled": jnp.zeros(size).size * factory(1.0)}

    keys = {"key": KEYS, "offset": offsets}
    found = quiet(run, keys=keys, table=tables, factory=[jnp.exp, jnp.cos], size=[2, 3], static=["size"])
    np.testing.assert_array_equal(found["table"], [0, 1, 2])
    assert found["factory"].values.tolist() == ["exp", "cos"]
    expected = tables.sum((1, 2))[:, None, None, None] + np.broadcast_to(offsets, (2, 2, 5))
    np.testing.assert_array_equal(found["total"], expected)
    np.testing.assert_allclose(found["scaled"][0, :, :, 0], np.outer([np.e, np.cos(1)], [2, 3]), rtol=1e-6)


def test_nothing_is_compiled_twice(monkeypatch):
    compiled = []
    compile_batch = _job.compile_batch
    monkeypatch.setattr(_job, "compile_batch", lambda *args: compiled.append(args) or compile_batch(*args))

    def run(key, rho):
        return rho + jax.random.normal(key)

    for _ in range(2):
        quiet(run, keys=KEYS, rho=RHO, batch_size=2)
    quiet(lambda key, rho: run(key, rho), keys=jax.random.split(jax.random.key(7), 9), rho=[5.0], batch_size=2)
    assert len(compiled) == 1
    # More programs than are remembered are still compiled once each.
    sizes = list(range(1, _programs.MAX_RECENT + 4))
    quiet(lambda key, size: key_sum(key) * size, keys=KEYS, size=sizes, static=["size"], batch_size=5)
    assert len(compiled) == 1 + len(sizes)


class Width(NamedTuple):
    size: float


@dataclasses.dataclass(frozen=True)
class Height:
    size: float


@pytest.mark.parametrize(
    "settings",
    [
        [("sgd", 1), ("sgd", True)],
        [(1, 2), (1.0, 2)],
        [Width(2), Width(2.0)],
        [Height(2), Height(2.0)],
        [[("a", 0.0)], [("a", -0.0)]],
        [0.0, -0.0],
        [np.float32(2), np.float64(2)],
    ],
    ids=repr,
)
def test_static_settings_that_are_equal_but_not_the_same_are_kept_apart(settings):
    """Each run gets its own: what it was given, and nothing that only compares equal."""

    def run(key, setting):
        return jnp.array([ord(letter) for letter in repr(setting).ljust(30)[:30]])

    found = quiet(run, keys=KEYS, setting=settings, static=["setting"])
    texts = ["".join(map(chr, row.astype(int))).strip() for row in found["value"].values[:, 0]]
    assert texts == [repr(setting) for setting in settings]


def calling_back(python):
    def run(key, rho):
        called = jax.pure_callback(python, jax.ShapeDtypeStruct((), rho.dtype), rho, vmap_method="expand_dims")
        return called + 0 * jax.random.uniform(key, dtype=rho.dtype)

    return run


def test_functions_that_call_back_are_never_taken_for_one_another():
    """Their programs have one text. In turn, and in one sweep over both."""
    doubled, negated = calling_back(lambda x: 2 * x), calling_back(lambda x: -x)
    for run, factor in ((doubled, 2), (negated, -1)):
        np.testing.assert_array_equal(quiet(run, keys=KEYS, rho=RHO)["value"][:, 0], factor * np.array(RHO))
    both = quiet(lambda key, rho, function: function(key, rho), keys=KEYS, rho=RHO, function=[doubled, negated])
    np.testing.assert_array_equal(both["value"][:, :, 0], np.outer(RHO, [2, -1]))


def test_a_store_is_refused_where_results_come_from_a_callback(tmp_path):
    with pytest.raises(damjax.StoreError, match=r"store must be left out, since calling_back.* calls back into Python"):
        quiet(calling_back(np.sin), keys=KEYS, rho=RHO, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_store_is_kept_where_a_callback_only_tells(tmp_path):
    def run(key, rho):
        jax.debug.callback(lambda: None)
        return rho + 0 * jax.random.uniform(key, dtype=rho.dtype)

    for _ in range(2):
        found = quiet(run, keys=KEYS, rho=RHO, store=tmp_path / "store")
        np.testing.assert_array_equal(found["value"][:, 0], RHO)


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_keys_whose_draws_depend_on_the_batch_are_refused(kind):
    """Given as keys, hidden in data of each seed, or made within."""
    keys = jax.random.split(jax.random.key(0, impl=kind), 3)
    draws = {
        "given": (keys, lambda key, rho: rho + jax.random.normal(key)),
        "hidden": ({"its": keys}, lambda seed, rho: rho + jax.random.normal(seed["its"])),
        "made": (np.arange(3), lambda seed, rho: rho + jax.random.normal(jax.random.key(seed, impl=kind))),
    }
    for seeds, run in draws.values():
        with pytest.raises(ValueError, match="run must draw its random bits by keys of the kind 'threefry2x32'"):
            quiet(run, keys=seeds, rho=RHO)


def key_sum(key):
    return jax.random.key_data(key).sum()


def test_what_surrounds_a_function_is_seen_anew_in_every_call():
    scale = [1.0]

    def run(key, rho):
        return rho * scale[0]

    assert quiet(run, keys=KEYS, rho=[3.0])["value"][0, 0] == 3
    scale[0] = 2.0
    assert quiet(run, keys=KEYS, rho=[3.0])["value"][0, 0] == 6


def test_programs_that_differ_in_names_only_are_told_apart():
    for name in ("rho", "rate"):
        found = quiet(lambda key, **settings: {f"twice_{name}": 2 * settings[name]}, keys=KEYS, **{name: RHO})  # noqa: B023
        np.testing.assert_array_equal(found[f"twice_{name}"][:, 0], 2 * np.array(RHO))
    for keys in ({"a": np.arange(3.0)}, {"b": np.arange(3.0)}):
        found = quiet(lambda seed, rho: 3 * rho + sum(seed.values()), keys=keys, rho=RHO)
        np.testing.assert_array_equal(found["value"][0], np.arange(3.0))


def test_static_values_that_are_equal_but_not_alike_are_told_apart():
    def run(key, kind):
        return [bool, int, float, type(None)].index(type(kind))

    found = quiet(run, keys=KEYS, kind=[True, 1, 1.0, None], static=["kind"])
    np.testing.assert_array_equal(found["value"][:, 0], [0, 1, 2, 3])


def test_records_pairs_and_mixed_lists_are_values_of_an_axis():
    streams = [damjax.Associations(np.full((2, 3), i), np.ones((2, 3))) for i in (1.0, 2.0)]
    found = quiet(lambda key, stream: stream.keys.sum(), keys=KEYS, stream=streams)
    np.testing.assert_array_equal(found["value"][:, 0], [6, 12])
    assert found["stream"].values.tolist() == ["Associations_0", "Associations_1"]
    found = quiet(lambda key, data: data["x"].sum(), keys=KEYS, data=[{"x": np.ones(3)}, {"x": np.zeros(3)}])
    np.testing.assert_array_equal(found["value"][:, 0], [3, 0])
    balls = [damjax.domains.frobenius_ball(radius) for radius in (1.0, 2.0)]
    found = quiet(lambda key, ball: ball.diameter, keys=KEYS, ball=balls)
    np.testing.assert_array_equal(found["value"][:, 0], [2, 4])
    found = quiet(lambda key, shape: jnp.ones(shape).sum(), keys=KEYS, shape=[(2, 3), (4,)], static=["shape"])
    np.testing.assert_array_equal(found["value"][:, 0], [6, 4])
    found = quiet(lambda key, rate: 7.0 if rate == "auto" else float(rate), keys=KEYS, rate=[1, "auto"])
    np.testing.assert_array_equal(found["value"][:, 0], [1, 7])
    found = quiet(lambda key, options: options["a"], keys=KEYS, options=[{"a": 1}, {"a": 2}])
    np.testing.assert_array_equal(found["value"][:, 0], [1, 2])


def test_callable_objects_are_swept():
    class Run:
        __hash__ = None  # pyright: ignore[reportAssignmentType]

        def __call__(self, key, rho):
            return 2 * rho

    np.testing.assert_array_equal(quiet(Run(), keys=KEYS, rho=[1.0])["value"], 2.0)


def test_a_run_that_fails_is_marked_and_spoils_no_other():
    def run(key, rho):
        value = jnp.log(rho) + jax.random.normal(key)
        return {"value": value, "steps": 7}

    with pytest.warns(RuntimeWarning, match=r"5 of 15 runs gave NaN or infinity, the first at rho=-1\.0, seed=0"):
        found = quiet(run, keys=KEYS, rho=[1.0, -1.0, 2.0])
    np.testing.assert_array_equal(found["finite"], np.array([[True], [False], [True]]) & np.ones(5, bool))
    np.testing.assert_allclose(found["value"].sel(rho=2.0), quiet(run, keys=KEYS, rho=[2.0])["value"][0])
    # A mean does not leave out in silence what has failed.
    assert np.isnan(found.sweep.mean()["value"].sel(rho=-1.0))


def test_batches_are_sized_by_memory():
    def run(key, rho):
        return jnp.cumsum(jax.random.normal(key, (1000,))).sum() + rho

    large = int(quiet(run, keys=KEYS, rho=np.arange(40.0))["batch_size"])
    found = quiet(run, keys=KEYS, rho=np.arange(40.0), memory=250_000)
    small = int(found["batch_size"])
    # 200 runs in four batches of one size: all seeds of ten settings.
    assert large == (50 if jax.default_backend() == "cpu" else 200)
    assert 1 <= small < large
    job = Job(run, KEYS, {"rho": np.arange(40.0)})
    needed = [_programs.bytes_per_device(job.compiled(0, size)) for size in (small, large)]
    assert needed[0] <= 250_000 < needed[1]
    with pytest.raises(ValueError, match=r"memory is 10 bytes per device, but one run needs \d+\.\d KiB"):
        quiet(run, keys=KEYS, rho=[0.0], memory=10)
    assert 2**20 < _programs.free_bytes(jax.devices()) < 2**50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": jax.random.key(0)}, "keys must have one leading axis of seeds"),
        ({"rho": 0.5}, r"axis rho must hold one value per setting, but it is 0\.5"),
        ({"rho": []}, "axis rho must hold at least one value"),
        ({"rho": [[1.0], [1.0, 2.0]]}, "axis rho must be an array, but its values have unequal shapes"),
        ({"zipped": [("rho", "rate")]}, r"equally long, but their lengths are \{'rho': 3, 'rate': 2\}"),
        ({"zipped": [("rho", "sigma")]}, r"zipped must name axes.*it names \['sigma'\]"),
        ({"zipped": ("rho", "rate")}, "zipped must be a list of groups of axes"),
        ({"zipped": [("rho", "rho")]}, "at most once"),
        ({"static": ["sigma"]}, r"static must name axes.*it names \['sigma'\]"),
        ({"sigma": [1.0]}, "run must take a key and then every axis by name, but got an unexpected keyword argument"),
        ({"seed": [1.0]}, "axes must not be called seed, finite, batch_size"),
        ({"done": [1.0]}, "axes must not be called .*, but one is called 'done'"),
        ({"rho": {"a": RHO}}, r"axis rho must hold one value per setting, but it is \{'a'.*write \[\{'a'"),
        ({"rho": {0.0, 1.0}}, r"axis rho must hold one value per setting, but it is \{.*write list\(\{"),
        ({"rho": damjax.Associations(np.ones(3), np.ones(3))}, "axis rho must hold one value .* it is Associations"),
        ({"rho": KEYS}, "axis rho must hold numbers, names or objects, but it holds typed keys"),
        ({"rho": list(KEYS)}, "axis rho must hold numbers, names or objects, but it holds typed keys"),
        ({"store": [1.0, 2.0]}, r"store must be a folder, but it is \[1\.0, 2\.0\]; an axis of that name"),
        ({"memory": [1.0, 2.0]}, "memory must be a positive integer"),
        ({"progress": [1.0, 2.0]}, "progress must be True, False or a title"),
        ({"vectorize": [1.0, 2.0]}, "vectorize must be a function"),
        ({"devices": ["cpu"]}, "devices must hold at least one device of jax"),
        ({"devices": 2}, "devices must hold at least one device of jax"),
        ({"static": None}, r"static must be a list of names of axes, but it is None"),
        ({"static": "rho"}, r"static must be a list of names of axes, but it is 'rho'; write \['rho'\]"),
        ({"zipped": None}, "zipped must be a list of groups of axes"),
        ({"run": 3.0}, "run must be a function of a key and settings"),
        ({"dims": {"regret": ("horizon",)}}, r"dims must name results of run.*it names \['regret'\]"),
        ({"dims": {"end": ("a", "b")}}, "dims must give each of the 1 axes of 'end' a name of its own"),
        ({"dims": {"end": ("rho",)}}, r"run must not return \['rho'\]"),
        ({"dims": "horizon"}, "dims must map results to names"),
        ({"rho": [2**40]}, "axis rho must hold integers of at most 32 bits"),
        ({"rho": np.array(["2026-01-01"], "datetime64[D]")}, "axis rho must be an array of numbers or a list of names"),
        ({"end_0": [1.0], "run": lambda key, rho, rate, end_0: noisy(key, rho, rate)}, r"must not return \['end_0'\]"),
        ({"devices": []}, "devices must hold at least one device"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"memory": 0.5}, "memory must be a positive integer"),
    ],
)
def test_bad_input_is_named(arguments, message, untyped):
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(ValueError, match=message):
        quiet(**{"run": noisy, "keys": KEYS, "rho": RHO, "rate": RATE} | arguments)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda key, rho: {"rho": rho}, r"run must not return \['rho'\]"),
        (lambda key, rho: jax.random.key(1), "run must return arrays of numbers"),
        (lambda key, rho: {}, "run must return at least one array"),
        (lambda key, rho: "text", "run must return arrays of numbers, but its result is 'text'"),
        (lambda key, rho: {"a": [rho, "text"]}, r"run must return arrays of numbers, but \['a'\]\[1\] is 'text'"),
        (lambda key, rho: np.array("text"), "run must return arrays of numbers, but its result is array"),
        (lambda key, rho: {"a.b": rho, "a": {"b": rho}}, r"under different names, but \['a\.b'\] come twice"),
        (lambda key, rho: {"a": jnp.ones(2), "a_0": rho}, r"run must not return \['a_0'\]"),
    ],
)
def test_bad_results_are_named(run, message):
    with pytest.raises(ValueError, match=message):
        quiet(run, keys=KEYS, rho=RHO)


def test_results_that_differ_in_shape_between_settings_are_named():
    with pytest.raises(ValueError, match=r"run must return the same names, shapes and dtypes.*at \{'size': 3\}"):
        quiet(lambda key, size: jnp.zeros(size), keys=KEYS, size=[2, 3], static=["size"])


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ({"rho": 0.25, "seed": 0}, "at must say where along 'rate' the run is"),
        ({"rho": 0.3, "rate": 0.5, "seed": 0}, r"no setting has \{'rho': 0\.3\}"),
        ({"rho": 0.25, "rate": 0.5, "seed": 5}, r"no setting has \{'seed': 5\}"),
        ({"rho": 0.25, "rate": 0.5, "seed": 0, "c": 1}, r"it holds \['c'\]"),
        ({"rho": [0.25], "rate": 0.5, "seed": 0}, "at must hold one label per axis"),
        (None, r"at must map \['rho', 'rate', 'seed'\] to the coordinates of a run, but it is None"),
    ],
)
def test_a_run_that_is_not_there_is_not_redone(at, message, untyped):
    with pytest.raises(ValueError, match=message):
        damjax.rerun(noisy, at=at, batch_size=2, keys=KEYS, rho=RHO, rate=RATE)


def test_a_label_that_says_too_little_is_not_guessed():
    plan = make_plan(np.arange(2), {"name": ["a", "a"], "rate": [1.0, np.nan]}, zipped=[("name", "rate")])
    with pytest.raises(ValueError, match=r"2 settings have \{'name': 'a'\}; say rate too"):
        plan.find({"name": "a", "seed": 0})
    assert plan.find({"name": "a", "rate": np.nan, "seed": 1}) == 3
    functions = make_plan(np.arange(2), {"f": [lambda x: x, lambda x: -x]})
    assert functions.coordinates()["f"][1].tolist() == ["<lambda>_0", "<lambda>_1"]


@hypothesis.given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    most=st.integers(1, 100),
    num_devices=st.integers(1, 8),
    seed=st.integers(0, 10**6),
)
def test_every_run_is_in_one_batch_and_batches_are_blocks(lengths, most, num_devices, seed):
    """Of the plan's own table, and of a larger one in another order, as a store may hold."""
    rng = np.random.default_rng(seed)
    *settings, num_seeds = lengths
    names = [f"x{dim}" for dim in range(len(settings))]
    plan = make_plan(np.arange(num_seeds), {name: np.arange(n) for name, n in zip(names, settings, strict=True)})
    own = plan.table(most, num_devices)
    size = math.prod(own.block)
    assert size <= most
    # The size of a block says what the blocks are.
    assert plan.table(size, num_devices).block == own.block
    larger = tuple(length + int(rng.integers(3)) for length in lengths)
    places = [rng.permutation(n)[:length] for n, length in zip(larger[:-1], settings, strict=True)]
    for table in (own, Table(larger, own.block, (*places, np.arange(num_seeds)))):
        batches = plan.batches(table)
        assert all(len(batch.runs) == size and batch.counts.any() for batch in batches)
        np.testing.assert_array_equal(
            np.sort(np.concatenate([batch.runs[batch.counts] for batch in batches])), np.arange(plan.num_runs)
        )
        for batch in batches:
            where = np.unravel_index(batch.runs[batch.counts], plan.shape)
            stands = [np.asarray(of)[at] for of, at in zip(table.places, where, strict=True)]
            for at, block, corner in zip(stands, table.block, batch.corner, strict=True):
                np.testing.assert_array_equal(at // block, corner)


def test_blocks_hold_seeds_first_and_one_program_each():
    plan = make_plan(np.arange(7), {"rho": RHO, "name": ["a", "b", "a"]})
    blocks = {most: plan.table(most).block for most in (1, 4, 13, 14, 20, 21, 100)}
    assert blocks == {
        1: (1, 1, 1), 4: (1, 1, 4), 13: (1, 1, 7), 14: (2, 1, 7), 20: (2, 1, 7), 21: (3, 1, 7), 100: (3, 1, 7)
    }  # fmt: skip
    # Devices share the work, as many rounds as ever.
    crossed = make_plan(np.arange(4), {"rho": np.arange(21)})
    shared = {(64, 1): (11, 4), (64, 2): (11, 4), (64, 8): (3, 4), (100, 100): (1, 1), (3, 4): (1, 2), (16, 2): (4, 4)}
    assert {case: crossed.table(*case).block for case in shared} == shared
    # A name that comes twice along an axis is one program.
    assert len(plan.groups) == 2
    assert [batch.group for batch in plan.batches(plan.table(21))] == [0, 0, 1]


def test_without_xarray_there_are_plain_arrays(monkeypatch):
    expected = quiet(noisy, keys=KEYS, rho=RHO, rate=RATE)
    monkeypatch.setitem(sys.modules, "xarray", None)
    monkeypatch.delitem(sys.modules, "damjax.sweeps.labelled")
    found = quiet(noisy, keys=KEYS, rho=RHO, rate=RATE)
    assert type(found) is dict
    assert set(found) == {"end", "path", "finite", "rho", "rate", "seed", "batch_size"}
    np.testing.assert_array_equal(found["end"], expected["end"].values)
    with pytest.raises(ImportError, match=r"pip install 'damjax\[sweeps\]'"):
        import damjax.sweeps.labelled  # noqa: F401


def test_progress_is_shown(capsys):
    damjax.sweep(noisy, keys=KEYS, rho=RHO, rate=RATE, batch_size=10, progress="figure")
    shown = capsys.readouterr().err
    assert "figure: 100%" in shown
    assert "30/30" in shown
    assert "chunk 3/3" in shown
    assert "run/s" in shown


DEVICES = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
import damjax
from tests.sweeps.test_sweep import KEYS, RATE, RHO, late, noisy
arguments = {"keys": KEYS, "rho": RHO, "rate": RATE, "batch_size": 2, "progress": False}
all_of_them = damjax.sweep(noisy, **arguments)
first_only = damjax.sweep(noisy, devices=jax.devices()[:1], **arguments)
assert len(jax.local_devices()) == 8
at = {"rho": 0.25, "rate": 2.0, "seed": 3}
again = damjax.rerun(noisy, at=at, **{name: arguments[name] for name in ("keys", "rho", "rate", "batch_size")})
for name in ("end", "path"):
    np.testing.assert_allclose(all_of_them[name], first_only[name], rtol=1e-12)
    np.testing.assert_array_equal(all_of_them[name].sel(at), again[name])
# A number of a law of delays, and its draws.
arguments = {"keys": KEYS[:2], "p": [0.1, 0.5, 1.0], "loss": [0.0, 0.3], "progress": False}
all_of_them = damjax.sweep(late, **arguments)
first_only = damjax.sweep(late, devices=jax.devices()[:1], **arguments)
for name in ("params", "lost"):
    np.testing.assert_allclose(all_of_them[name], first_only[name], rtol=1e-12)
assert (all_of_them["lost"].sel(loss=0.3) > all_of_them["lost"].sel(loss=0.0)).all()
"""


def late(key, p, loss):
    """A run under random delays and losses: the final memories, and how many gradients never came."""
    stream, _ = damjax.streams.linear_model(key, num_agents=3, num_steps=30, key_dim=2, value_dim=2)
    law = channels.lossy(channels.geometric(p, key=key, max_delay=40), loss, key=jax.random.fold_in(key, 1))
    algorithm = damjax.dam_togd(
        damjax.objectives.delta_net(),
        np.full((3, 3), 1 / 3),
        law,
        learning_rate=0.1,
        domain=damjax.domains.frobenius_ball(20.0),
    )
    state, trace = damjax.simulate(algorithm, jnp.zeros((3, 2, 2)), stream)
    return {"params": state.params, "lost": trace.info.num_lost.sum()}


@pytest.mark.long
def test_eight_devices_give_the_numbers_of_one():
    children.run([sys.executable, "-c", DEVICES], timeout=300)


@pytest.mark.long
def test_whole_algorithms_are_swept():
    """What researchers sweep: the loss of an algorithm over rates."""
    objective, ball = damjax.objectives.delta_net(), damjax.domains.frobenius_ball(20.0)

    def run(key, rate):
        stream, _ = damjax.streams.linear_model(key, num_agents=2, num_steps=20, key_dim=2, value_dim=2)
        algorithm = damjax.ogd(objective, np.eye(2), learning_rate=rate, domain=ball)
        observe = damjax.regret.observe_losses(objective, np.eye(2))
        return damjax.simulate(algorithm, jnp.zeros((2, 2, 2)), stream, observe=observe)[1].mean()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = quiet(run, keys=KEYS[:2], rate=[0.1, 0.3])
    np.testing.assert_allclose(found["value"], loops(run, KEYS[:2], [0.1, 0.3]), rtol=1e-9)


def test_a_run_is_found_by_a_number_that_differs_by_rounding():
    rho = np.array([0.1 + 0.2, 0.6, np.nan])
    assert rho[0] != 0.3
    found = quiet(noisy_at, keys=KEYS, rho=rho)
    for at in (0.3, np.float64(0.3), rho[0]):
        again = damjax.rerun(
            noisy_at, at={"rho": at, "seed": 1}, batch_size=int(found["batch_size"]), keys=KEYS, rho=rho
        )
        np.testing.assert_array_equal(again, found["value"][0, 1])
    single = np.array([0.6, 0.3], np.float32)
    assert damjax.rerun(noisy_at, at={"rho": 0.6, "seed": 1}, batch_size=1, keys=KEYS, rho=single).shape == ()
    for wrong in (0.3001, 0.0):
        with pytest.raises(ValueError, match="at"):
            damjax.rerun(noisy_at, at={"rho": wrong, "seed": 1}, batch_size=1, keys=KEYS, rho=rho)


def noisy_at(key, rho):
    return jnp.nan_to_num(rho) + jax.random.normal(key, dtype=rho.dtype)


@pytest.mark.parametrize("stored", [True, False])
def test_what_is_stopped_says_what_is_kept(tmp_path, monkeypatch, capsys, stored):
    """Ctrl-C between the second and the third of six batches; and before the first bar it says that it compiles."""
    finish, done = Job.finish, []

    def stopping(job, started):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(started)
        return finish(job, started)

    store = tmp_path / "store" if stored else None
    call = functools.partial(
        damjax.sweep, noisy_at, keys=KEYS, rho=[1.0, 2.0, 3.0], batch_size=3, devices=jax.devices()[:1], store=store
    )
    with monkeypatch.context() as patch:
        patch.setattr(Job, "finish", stopping)
        message = (
            rf"stopped: 5 of 15 runs are kept in {re.escape(str(store))}; call" if stored else "none is kept, since"
        )
        with pytest.raises(KeyboardInterrupt, match=message):
            call(progress="a title")
    assert "a title: compiling" in capsys.readouterr().err
    assert call(progress=False)["value"].shape == (3, 5)

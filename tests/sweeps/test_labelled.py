"""Statistics along the seeds, against NumPy, SciPy and what an interval promises."""

import jax
import networkx as nx
import numpy as np
import pytest
import scipy.stats
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Annotation

import damjax
from damjax import plotting
from damjax.sweeps.labelled import label
from damjax.weights import SparseWeights

ALGORITHMS = ["OGD", "C-DOGD", "DAM-TOGD"]


def dataset(values, finite=None):
    """(algorithms, seeds, horizons)."""
    arrays = {"regret": values, "finite": np.isfinite(values).all(axis=2) if finite is None else finite}
    return label(arrays, {"algorithm": ("algorithm", np.array(ALGORITHMS[: len(values)]))}, ("algorithm", "seed"), 8)


@pytest.fixture
def runs():
    return dataset(np.random.default_rng(0).normal(size=(3, 40, 2)) + np.arange(3)[:, None, None])


def test_mean_and_normal_interval(runs):
    values = runs["regret"].values
    np.testing.assert_allclose(runs.sweep.mean()["regret"], values.mean(axis=1))
    interval = runs.sweep.normal_interval(0.9)["regret"]
    assert interval.dims == ("algorithm", "regret_0", "limit")
    low, high = scipy.stats.t.interval(0.9, 39, values.mean(axis=1), scipy.stats.sem(values, axis=1))
    np.testing.assert_allclose(interval.sel(limit="low"), low)
    np.testing.assert_allclose(interval.sel(limit="high"), high)


def test_the_figures_draw_this_interval(runs):
    _, low, high = plotting.mean_interval(runs["regret"].values[0])
    ends = runs.sweep.normal_interval()["regret"][0]
    np.testing.assert_allclose(ends, np.stack([low, high], axis=1), rtol=1e-12)


def test_the_interval_of_three_positive_seeds_is_wide_and_positive():
    """Student's quantile is 4.30, and a band on a logarithmic axis does not end below it."""
    samples = np.array([[0.1], [1.0], [4.0]])
    mean, low, high = plotting.mean_interval(samples, positive=True)
    half_width = 4.302653 * np.std(samples, ddof=1) / np.sqrt(3)
    assert mean - half_width < 0 < low < mean < high
    np.testing.assert_allclose(np.log(high / mean), half_width / mean, rtol=1e-6)
    np.testing.assert_allclose(low * high, mean**2)
    np.testing.assert_allclose(plotting.mean_interval(samples)[1], mean - half_width, rtol=1e-6)


@pytest.mark.parametrize("num_seeds", [3, 8])
def test_few_seeds_cover_the_mean_as_often_as_many(num_seeds):
    rng, shape = np.random.default_rng(0), (num_seeds, 20_000)
    for samples, expected, positive in ((rng.normal(size=shape), 0.0, False), (rng.normal(1.5, 0.2, shape), 1.5, True)):
        _, low, high = plotting.mean_interval(samples, positive=positive)
        assert 0.93 < np.mean((low < expected) & (expected < high)) < 0.97


def test_a_network_is_drawn_from_routes_of_either_form_and_with_or_without_positions():
    """K = 2 and K = N columns, in another order than that of the agents: each delay is written at its own agent."""
    graph = nx.path_graph(5)
    weights = np.zeros((5, 5))
    weights[:, [0, 4]] = 0.5
    two, five = np.tile([4, 0], (5, 1)), np.tile([4, 3, 0, 1, 2], (5, 1))
    of_all = np.tile([0.5, 0.0, 0.5, 0.0, 0.0], (5, 1))
    for table in (weights, SparseWeights(two, np.full((5, 2), 0.5)), SparseWeights(five, of_all)):
        routes = damjax.routing.compile_routes(graph, table)
        axes = Figure().subplots()
        plotting.network(axes, graph, routes, agent=1)
        placed = graph.copy()
        nx.set_node_attributes(placed, {node: (node, 0) for node in graph}, "pos")
        axes = Figure().subplots()
        plotting.network(axes, placed, routes, agent=1)
        written = {text.xy: text.get_text() for text in axes.texts if isinstance(text, Annotation)}
        assert written == {(0, 0): r"$\tau=2$", (4, 0): r"$\tau=6$"}


def test_bootstrap_interval_is_that_of_means_of_resampled_seeds():
    generator = np.random.default_rng(1)
    values = generator.exponential(size=(1, 30, 1))
    found = dataset(values).sweep.bootstrap_interval(jax.random.key(0), num_resamples=20_000)["regret"][0, 0]
    means = values[0, generator.integers(0, 30, (20_000, 30)), 0].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    # Quantiles of 20,000 resampled means are themselves known to about 2% of the interval.
    np.testing.assert_allclose(found, [low, high], atol=0.04 * (high - low))


@pytest.mark.parametrize("method", ["normal", "bootstrap"])
def test_intervals_cover_the_mean_as_often_as_they_say(method):
    samples = dataset(np.random.default_rng(2).normal(size=(1, 30, 2000)))
    ends = (
        samples.sweep.normal_interval() if method == "normal" else samples.sweep.bootstrap_interval(jax.random.key(1))
    )
    low, high = ends["regret"][0].values.T
    # 30 normal samples: 95%, and 93% for the bootstrap, which divides by S.
    assert 0.915 < np.mean((low < 0) & (high > 0)) < 0.96


def test_paired_differences_lose_what_the_seeds_share():
    generator = np.random.default_rng(3)
    shared, own = generator.normal(size=(1, 50, 1)), 0.01 * generator.normal(size=(3, 50, 1))
    runs = dataset(10 * shared + own + np.arange(3.0)[:, None, None])
    gap = runs.sweep.paired_difference("algorithm", "OGD")
    np.testing.assert_allclose(gap["regret"], runs["regret"] - runs["regret"][0])
    np.testing.assert_array_equal(gap["regret"].sel(algorithm="OGD"), 0)
    low, high = gap.sweep.normal_interval()["regret"].sel(algorithm="C-DOGD").values[0]
    assert 0.99 < low < 1 < high < 1.01
    unpaired = runs.sweep.normal_interval()["regret"].sel(algorithm="C-DOGD").values[0]
    assert np.diff(unpaired) > 1


def test_a_label_other_than_the_baseline_may_come_twice():
    """Zipped axes share a dimension, and the labels are those of the first."""
    found = damjax.sweep(
        lambda key, rho, rate: rho + rate + jax.random.normal(key),
        keys=jax.random.split(jax.random.key(0), 3),
        zipped=[("rho", "rate")],
        rho=[0.0, 0.5, 0.5],
        rate=[1.0, 1.0, 2.0],
        progress=False,
    )
    gap = found.sweep.paired_difference("rho", 0.0)["value"]
    np.testing.assert_allclose(gap, np.repeat([[0.0], [0.5], [1.5]], 3, axis=1), rtol=1e-12)
    assert gap["rate"].values.tolist() == [1.0, 1.0, 2.0]


def test_a_failed_run_shows_in_every_number(runs):
    values = runs["regret"].values.copy()
    values[1, 3] = np.nan
    failed = dataset(values)
    mean = failed.sweep.mean()
    assert mean["finite"].values.tolist() == [1.0, 39 / 40, 1.0]
    for found in (mean, failed.sweep.normal_interval(), failed.sweep.bootstrap_interval(jax.random.key(0))):
        np.testing.assert_array_equal(np.isnan(found["regret"]).any(found["regret"].dims[1:]), [False, True, False])
    gap = failed.sweep.paired_difference("algorithm", "C-DOGD")
    assert not gap["finite"][:, 3].any()
    assert gap["finite"][:, 4].all()


def test_integers_and_flags_are_numbers_here():
    runs = dataset(np.zeros((2, 3, 1)))
    runs["count"] = (("algorithm", "seed"), np.array([[0, 1, 2], [1, 3, 2]], np.uint32))
    runs["converged"] = (("algorithm", "seed"), np.array([[True, True, False], [True, True, True]]))
    runs["label"] = (("seed",), np.array(["a", "b", "c"]))
    gap = runs.sweep.paired_difference("algorithm", "C-DOGD")
    np.testing.assert_array_equal(gap["count"][0], [-1, -2, 0])
    np.testing.assert_allclose(runs.sweep.normal_interval()["converged"].mean("limit"), [2 / 3, 1])
    assert runs.sweep.mean()["finite"].values.tolist() == [1, 1]


def test_a_dataset_read_from_a_file_has_the_methods(runs, tmp_path):
    runs.to_netcdf(tmp_path / "runs.nc")
    again = xr.load_dataset(tmp_path / "runs.nc")
    xr.testing.assert_equal(again.sweep.mean(), runs.sweep.mean())


def test_results_of_a_sweep_have_the_methods():
    found = damjax.sweep(
        lambda key, shift: shift + jax.random.normal(key),
        keys=jax.random.split(jax.random.key(0), 100),
        shift=[0.0, 3.0],
        progress=False,
    )
    gap = found.sweep.paired_difference("shift", 0.0)
    np.testing.assert_allclose(gap.sweep.mean()["value"], [0, 3])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda runs: runs.sweep.normal_interval(95), r"level must lie in \(0, 1\), but it is 95"),
        (lambda runs: runs.isel(seed=[0]).sweep.normal_interval(), "at least two seeds"),
        (lambda runs: runs.isel(seed=0).sweep.mean(), "must have the dimension 'seed'"),
        (lambda runs: runs.sweep.paired_difference("rho", 0.5), "dim must be an axis of the sweep"),
        (lambda runs: runs.sweep.paired_difference("seed", 0), "dim must be an axis of the sweep"),
        (lambda runs: runs.sweep.paired_difference("algorithm", "SGD"), "baseline must be a label of algorithm"),
        (
            lambda runs: runs.isel(algorithm=[0, 1, 0]).sweep.paired_difference("algorithm", "OGD"),
            r"2 along algorithm have 'OGD', at the places \[0, 2\]; drop all but one of them",
        ),
        (
            lambda runs: runs.sweep.paired_difference("algorithm", ["OGD"]),
            r"baseline must hold one label per axis, but one is \['OGD'\]",
        ),
    ],
)
def test_bad_input_is_named(runs, use, message, untyped):
    with pytest.raises(ValueError, match=message):
        use(runs)


def test_complex_results_have_a_mean_and_no_interval():
    values = np.array([[1 + 2j, 3.0, 2j], [0, 1j, 1.0]])
    runs = xr.Dataset({"z": (("rho", "seed"), values)}, coords={"rho": [0, 1], "seed": [0, 1, 2]})
    np.testing.assert_allclose(runs.sweep.mean()["z"], values.mean(axis=1))
    np.testing.assert_allclose(runs.sweep.paired_difference("rho", 0)["z"], values - values[0])
    for interval in (runs.sweep.normal_interval, lambda: runs.sweep.bootstrap_interval(jax.random.key(0))):
        with pytest.raises(
            ValueError, match=r"intervals exist for real results, but \['z'\] are complex; .*assign\(z="
        ):
            interval()

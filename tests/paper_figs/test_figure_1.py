"""Figure 1, of the paper's algorithms and of one's own."""

import csv
import dataclasses
import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import damjax
from paper_figs import experiment, figure_1
from paper_figs.figure_1 import ALGORITHMS
from paper_figs.panels import Panel

SMALL = figure_1.Protocol(
    num_seeds=2,
    num_tuning_seeds=2,
    num_steps=20,
    rate_constants=(0.5, 1.0),
    correlations=(0.0, 1.0),
    concentrations=(0.1, 10.0),
)


def test_figure_1_shows_ratios_and_no_constants(monkeypatch):
    """Six panels with letters; the last two are of curves of 1, 6 and 3 times the regret of OGD."""
    rng = np.random.default_rng(0)
    ogd = rng.uniform(1, 2, (4, 3))
    samples = {name: factor * ogd for name, factor in zip(ALGORITHMS, (2, 12, 6), strict=True)}
    regret = Panel("x", np.array([0.1, 1.0, 10.0]), samples, {"rate_constant": {name: [7.7] for name in ALGORITHMS}})
    ratio = figure_1.ratio_to_ogd(regret)
    for name, factor in zip(ALGORITHMS, (1, 6, 3), strict=True):
        np.testing.assert_allclose(ratio.samples[name], factor)
    panels = dict.fromkeys(("time", "correlation", "concentration"), regret)
    panels |= {f"{kind}_ratio": ratio for kind in ("correlation", "concentration")}
    monkeypatch.setattr(figure_1, "draw_network", lambda axes, protocol: axes.set_axis_off())
    figure = figure_1.FIGURE.picture(panels)
    assert [axes.get_title("left")[:3] for axes in figure.axes] == [f"({letter})" for letter in "abcdef"]
    assert not any("7.7" in text.get_text() for text in figure.texts)
    assert ["ratio" in axes.get_ylabel() for axes in figure.axes] == [False] * 4 + [True] * 2


def test_the_caption_says_what_comes_from_where(monkeypatch):
    """Every number of the data that the protocol has is in it, with the paper that publishes it."""
    panel = Panel("x", np.array([0.1, 1.0]), {name: np.ones((2, 2)) for name in ALGORITHMS})
    kinds = ("time", "correlation", "concentration", "correlation_ratio", "concentration_ratio")
    monkeypatch.setattr(figure_1, "draw_network", lambda axes, protocol: axes.set_axis_off())
    (text,) = figure_1.FIGURE.picture(dict.fromkeys(kinds, panel)).texts
    caption = text.get_text()
    protocol = figure_1.FIGURE.protocol
    for words in (
        *figure_1.SOURCES,
        *figure_1.SOURCES.values(),
        f"T = {protocol.num_steps}",
        "means on [{:g}, {:g}]".format(*protocol.personal_mean),
        "variances on [{:g}, {:g}]".format(*protocol.personal_variance),
        f"noise of variance {protocol.noise_std**2:g}",
        f"radius {protocol.radius:g}",
        f"{protocol.value_dim} x {protocol.key_dim} memories",
        f"({protocol.correlation_concentration:g}, {protocol.self_concentration:g})",
    ):
        assert words in caption
    tuned = panel._replace(columns={"rate_constant": {name: [1.0] for name in ALGORITHMS}})
    panels: dict[str, Panel] = dict.fromkeys(kinds, tuned)
    sources = figure_1.facts(panels, protocol)["sources"]
    assert sources.keys() == figure_1.SOURCES.keys()
    assert "combine-then-adapt" in sources["the follow-up by its authors (arXiv 2511.23347)"]


def test_consensus_combines_then_adapts():
    """In the paper's figures; the library's default is the other order."""
    parts = experiment.Parts(
        damjax.objectives.delta_net(),
        damjax.domains.frobenius_ball(2.0),
        jnp.eye(3),
        jnp.zeros((3, 3), jnp.int32),
        0,
        damjax.graphs.metropolis_weights(damjax.graphs.path(3)),
    )
    rng = np.random.default_rng(0)
    now = damjax.Associations(jnp.asarray(rng.normal(size=(3, 2))), jnp.asarray(rng.normal(size=(3, 2))))
    memories = jnp.asarray(0.1 * rng.normal(size=(3, 2, 2)))
    algorithm = ALGORITHMS["C-DOGD"](parts, jnp.asarray(0.1))
    after, _ = algorithm.step(algorithm.init(memories), now)
    residuals = np.einsum("nij,nj->ni", memories, now.keys) - now.values
    slopes = np.einsum("ni,nj->nij", residuals, now.keys)
    mixed = np.einsum("nm,mij->nij", parts.mixing, memories)
    np.testing.assert_allclose(after.params, mixed - 0.1 * slopes, rtol=1e-12)


def test_a_regret_that_is_not_finite_stops_the_figure(monkeypatch):
    protocol = dataclasses.replace(SMALL, rate_constants=(0.5,))
    monkeypatch.setattr(damjax.schedules, "inverse_sqrt", lambda scale: lambda count: jnp.nan * count)
    with (
        pytest.warns(RuntimeWarning, match="gave NaN or infinity"),
        pytest.raises(FloatingPointError, match=r"OGD at Setting.* not finite; lower the rate constants"),
    ):
        figure_1.compute(protocol, algorithms={"OGD": ALGORITHMS["OGD"]})


def by_norms() -> optax.GradientTransformation:
    """AdaGrad-norm: every gradient over the root of the sum of the squared norms so far."""

    def init(params: Any):
        return jnp.zeros((), params.dtype)

    def update(updates: Any, state: Any, params: Any = None):
        squares = state + jnp.sum(updates**2)
        return updates / jnp.sqrt(squares + 1e-12), squares

    return optax.GradientTransformation(init, update)


def adagrad_norm(parts, constant):
    """With delays, in a user's own words."""
    return damjax.dam_togd(
        parts.objective,
        parts.weights,
        parts.delays,
        learning_rate=lambda count: jnp.full(count.shape, constant),
        domain=parts.domain,
        max_delay=parts.max_delay,
        transform=by_norms(),
    )


@pytest.mark.long
def test_an_algorithm_of_ones_own_stands_beside_the_papers(tmp_path):
    """It is tuned and written down as they are, and what is the same has the same numbers whatever stands beside it."""
    figure = dataclasses.replace(figure_1.FIGURE, protocol=SMALL)
    algorithms = {"OGD": ALGORITHMS["OGD"], "mine": adagrad_norm, "twin": ALGORITHMS["OGD"]}
    paths = figure.make(tmp_path, algorithms=algorithms)
    with (tmp_path / "figure_1_runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    ogd, mine, twin = (
        np.array([float(row["average_regret"]) for row in rows if row["algorithm"] == name]) for name in algorithms
    )
    np.testing.assert_array_equal(twin, ogd)
    assert np.all(np.isfinite(mine))
    assert not np.any(np.isclose(mine, ogd, rtol=1e-3))
    settings = json.loads(paths[-1].read_text())["settings"]
    assert settings["algorithms"] == ["OGD", "mine", "twin"]
    assert set(settings["tuned_rate_constants"]["time"]["mine"]) <= set(SMALL.rate_constants)
    # No command makes this figure.
    assert "command" not in settings


def test_curves_of_four_algorithms_can_be_told_apart(monkeypatch):
    samples = {name: np.ones((2, 3)) for name in (*ALGORITHMS, "mine")}
    panel = Panel("x", np.array([0.1, 1.0, 10.0]), samples)
    monkeypatch.setattr(figure_1, "draw_network", lambda axes, protocol: axes.set_axis_off())
    kinds = ("time", "correlation", "concentration", "correlation_ratio", "concentration_ratio")
    _, *others = figure_1.FIGURE.picture(dict.fromkeys(kinds, panel)).axes
    assert others[0].get_legend_handles_labels()[1] == [*ALGORITHMS, "mine"]
    for axes in others:
        for kind in ("color", "marker", "linestyle"):
            assert len({getattr(line, f"get_{kind}")() for line in axes.get_lines()}) == 4


def test_without_ogd_there_is_no_ratio():
    with pytest.raises(ValueError, match=r"algorithms must hold OGD, whose regret the others' is divided by, .* mine;"):
        figure_1.compute(SMALL, algorithms={"mine": adagrad_norm})

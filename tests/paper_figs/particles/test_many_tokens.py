"""What the particle figures (d)-(h) claim, measured with the figures' own programs at a smaller size."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from damjax import particles
from paper_figs.particles import capacity, common, correlations, factorised, normalization, zipf_tokens
from paper_figs.sweeps import quiet

pytestmark = pytest.mark.long


def interval(samples):
    """The normal 95% interval of the mean."""
    half_width = 1.96 * np.std(samples, ddof=1) / np.sqrt(len(samples))
    return np.mean(samples) - half_width, np.mean(samples) + half_width


@pytest.fixture(scope="module")
def zipf_panels():
    jax.config.update("jax_enable_x64", True)
    return zipf_tokens.compute(zipf_tokens.Protocol(num_steps=1000))


def test_many_dimensions_recall_all_and_the_loss_falls_as_one_over_t(zipf_panels):
    losses, margins = zipf_panels["losses_10"], zipf_panels["margins_10"].samples
    late = losses.x >= 200
    for samples in losses.samples.values():
        slopes = np.polyfit(np.log(losses.x[late]), np.log(samples[:, late].T), 1)[0]
        np.testing.assert_allclose(slopes, -1, atol=0.1)
    assert all(samples[:, -1].min() > 3 for samples in margins.values())
    assert interval(margins["rank 1"][:, -1] - margins["rank 5"][:, -1])[0] > 0.5
    assert all(samples[:, -1].max() < 1e-9 for samples in zipf_panels["rises"].samples.values())


def test_few_dimensions_and_large_steps_spike(zipf_panels):
    small, _, large = zipf_panels["rises"].samples.values()
    assert small.max() < 1e-9
    assert np.mean(large[:, 0] > 1e-3) > 0.4
    assert interval(large[:, 0] - large[:, 1])[0] > 0
    for samples in zipf_panels["perfect"].samples.values():
        assert interval(samples[:, 0] - samples[:, 2])[0] > 0


def fractions(num_tokens, dims, num_draws):
    run = functools.partial(capacity.separable, num_tokens=num_tokens, protocol=capacity.Protocol())
    keys = jax.random.split(jax.random.key(1), num_draws)
    # As in the figure.
    found = quiet("separable", run, keys=keys, vectorize=jax.vmap, ratio=np.array(dims) / num_tokens)
    return np.asarray(found["value"]).mean(axis=1)


def test_descent_separates_as_often_as_covers_theorem_says():
    assert capacity.cover(16, 8) == capacity.cover(64, 32) == 0.5
    small, large = list(range(4, 13)), [26, 28, 30, 32, 34, 36, 38]
    found, many = fractions(16, small, 256), fractions(64, large, 128)
    expected = np.array([capacity.cover(16, dim) for dim in small])
    # Four standard deviations of a binomial fraction; the draws are fixed.
    assert np.all(np.abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / 256))
    low, middle, high = np.interp([0.25, 0.5, 0.75], found, np.array(small) / 16)
    narrow_low, narrow_middle, narrow_high = np.interp([0.25, 0.5, 0.75], many, np.array(large) / 64)
    np.testing.assert_allclose([middle, narrow_middle], 0.5, atol=0.025)
    # A width of 1 / sqrt(N) halves from 16 to 64 tokens; at 1 / N the ratio were 4, without any shrinking 1.
    assert 1.4 < (high - low) / (narrow_high - narrow_low) < 2.8


def test_rare_tokens_are_forgotten():
    protocol = capacity.Protocol(num_tokens=15, dims=(3, 4, 6), num_steps=500)
    run = functools.partial(capacity.recall, protocol=protocol)
    keys = jax.random.split(jax.random.key(2), 64)
    recalled = np.asarray(quiet("recall", run, keys=keys, dim=protocol.dims)["value"])
    ranks, accuracy = common.by_rank(recalled)
    np.testing.assert_array_equal(ranks, [1, 2.5, 5.5, 11.5])
    for of_dim in accuracy:
        assert np.all(np.diff(of_dim.mean(axis=0)) < 0)
        assert interval(of_dim[:, 0] - of_dim[:, -1])[0] > 0.3
    for fewer, more in itertools.pairwise(recalled):
        assert interval((more - fewer).mean(axis=1))[0] > 0.02


def test_the_calibration_gap():
    shares = []
    for dim in (2, 8):
        run = jax.jit(jax.vmap(lambda key, dim=dim: capacity.gap(key, dim, 1.0)))
        found, least = map(run(jax.random.split(jax.random.key(3), 256)).get, ("minimiser", "best"))
        # No class assignment of these tokens can be learnt: at best the rarest is given up.
        np.testing.assert_allclose(least, particles.embeddings.zipf(dim + 1)[-1])
        assert jnp.all(found >= least - 1e-9)
        shares.append(float(jnp.mean(found > least + 1e-9)))
    assert 0.25 < shares[0] < 0.55
    assert shares[1] > 0.8


def test_descent_reaches_the_minimiser_in_closed_form():
    def run(key):
        problem = capacity.inseparable(key, 4, 1.0)
        expected = particles.capacity.minimizer(particles.capacity.relation(problem), problem.frequencies)
        dynamics = particles.descent(particles.particle_system(5, 2), optax.sgd(2.0, 0.99, nesterov=True))
        state, _ = particles.evolve(dynamics, jnp.zeros((5, 2)), problem, 6000, observe=lambda _: None)
        found = particles.margins(state.params, problem), particles.error_rate(state.params, problem)
        return *found, expected.margins, expected.error_rate, expected.least_error_rate

    keys = jax.random.split(jax.random.key(4), 32)
    margins, errors, expected, expected_errors, least = jax.jit(jax.vmap(run))(keys)
    np.testing.assert_allclose(margins, expected, atol=1e-5)
    np.testing.assert_allclose(errors, expected_errors, atol=1e-12)
    assert jnp.mean(errors > least + 1e-9) > 0.5


def test_correlations():
    panels = correlations.compute(correlations.Protocol(num_steps=5000))
    scaled, limits = panels["scaled"].samples, panels["limits"].samples
    assert set(scaled) == {"Wishart", "block", "Toeplitz"}
    for name, samples in scaled.items():
        assert len(samples) > 16
        ratios = samples / limits[name]
        assert np.all(ratios[:, 0] < 0.6)
        np.testing.assert_allclose(ratios[:, -1], 1, atol=0.02)
    # The limits tell the matrices apart.
    assert interval(limits["block"][:, 0] - limits["Toeplitz"][:, 0])[0] > 5
    losses = panels["losses"].samples
    assert len(losses["rank 2, not separated"]) > 24
    assert 4 < len(losses["rank 4, separated"]) < 28
    for rank in (2, 4):
        assert losses[f"rank {rank}, not separated"][:, -1].min() > 0.05
    stuck = losses["rank 2, not separated"]
    np.testing.assert_allclose(stuck[:, -1], stuck[:, -4], rtol=1e-3)
    assert losses["rank 4, separated"][:, -1].max() < 0.05
    spreads = panels["spreads"].samples
    assert interval(spreads["rank 4"][:, -1] - spreads["rank 4"][:, -6])[0] > 1
    assert abs(np.mean(spreads["Toeplitz"][:, -1] - spreads["Toeplitz"][:, -6])) < 0.1


def test_memories_of_equal_size():
    for shape in factorised.Protocol().shapes:
        embeddings = jnp.ones((3, shape.dim))
        params = shape.memory(embeddings, embeddings).init(jax.random.key(0))
        assert sum(x.size for x in jax.tree.leaves(params)) == shape.num_parameters == 64


def test_low_rank_lowers_the_loss_and_not_the_errors():
    protocol = factorised.Protocol(num_seeds=16, num_steps=300)
    # Each at the step size that the figure finds best.
    shapes = tuple(
        shape._replace(learning_rates=(rate,)) for shape, rate in zip(protocol.shapes, (30.0, 2.0, 2.0), strict=False)
    )
    found = factorised.train(dataclasses.replace(protocol, shapes=shapes))
    losses, errors = (np.asarray(found[kind])[..., -1] for kind in ("losses", "errors"))
    assert interval(losses[1] - losses[0])[1] < -0.1
    assert interval(errors[1] - errors[0])[0] > -0.05
    # With the full memory's own embeddings low rank only takes away.
    assert np.all(losses[2] > losses[0])
    assert interval(errors[2] - errors[0])[0] > 0


def test_layer_normalisation_and_spikes():
    """Of the inputs it helps if tokens share a multiple of (1, ..., 1); of the scores it caps spikes and makes some."""
    protocol = normalization.Protocol(learning_rates=(0.1, 3.0), multiples=(0.5, 4.0), num_seeds=16, num_steps=150)
    panels = normalization.compute(protocol)
    for kind in ("amplitudes", "relative"):
        random, ones = (panels[f"{kind}_{case}"].samples for case in ("random", "ones"))
        for samples in (random, ones):
            assert samples["none"][:, 0].max() < 1e-9
            assert samples["none"][:, 1].min() > 1
            assert interval(samples["scores"][:, 0] - samples["none"][:, 0])[0] > 0.5
            assert interval(samples["scores"][:, 1] - samples["none"][:, 1])[1] < -1
        for name in ("inputs", "both"):
            assert interval(ones[name][:, 1] - ones["none"][:, 1])[1] < -4
            assert ones[name][:, 1].max() < 0.5
        # In another direction layer normalisation leaves the common vector where it was.
        assert random["inputs"][:, 1].mean() == pytest.approx(random["none"][:, 1].mean(), rel=0.25)

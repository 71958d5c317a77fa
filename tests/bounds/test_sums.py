"""Sums of rates: exact at integers, the one smooth continuation between them, and what they tighten."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import damjax
from damjax import bounds

EXPONENTS = (0.0, 0.1, 0.5, 0.9, 1 - 1e-9, 1.0, 1 + 1e-4, 1.6, 1.99)
COUNTS = (0, 1, 2, 3, 7, 8, 9, 60, 3000)
by_count = jax.jit(jax.vmap(bounds.harmonic_number, in_axes=(0, None)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-12), (jnp.float32, 1e-6)])
def test_it_is_the_sum_at_every_integer(dtype, tolerance):
    for exponent in EXPONENTS:
        expected = [math.fsum(j**-exponent for j in range(1, count + 1)) for count in COUNTS]
        sums = by_count(jnp.array(COUNTS, dtype), jnp.asarray(exponent, dtype))
        assert sums.dtype == dtype
        np.testing.assert_allclose(sums, expected, rtol=tolerance, atol=tolerance / 10)


def test_whole_numbers_and_arrays_of_them():
    assert bounds.harmonic_number(3, 1).dtype == jnp.float64
    assert bounds.harmonic_number(np.int32(3), np.float32(1)).dtype == jnp.float32
    table = bounds.harmonic_number(jnp.array([[1, 2], [3, 4]]), 1)
    np.testing.assert_allclose(table, [[1, 3 / 2], [11 / 6, 25 / 12]], rtol=1e-13)


def test_between_the_integers():
    """The harmonic series has a name there; every other must make a step of x^(-exponent), and no waves."""
    x = jnp.linspace(0.0, 30, 241)
    np.testing.assert_allclose(by_count(x, 1.0), scipy.special.digamma(x + 1) + np.euler_gamma, rtol=1e-12, atol=1e-14)
    for exponent in EXPONENTS:
        sums = by_count(x, exponent)
        np.testing.assert_allclose(sums[8:] - sums[:-8], x[8:] ** -exponent, rtol=1e-11)
        assert (jnp.diff(sums) > 0).all()
        assert (jnp.diff(sums, 2) < 1e-12).all()
    # The Hurwitz zeta function is the sum that is left.
    zeta = scipy.special.zeta(1.6, 1) - scipy.special.zeta(1.6, np.asarray(x) + 1)
    np.testing.assert_allclose(by_count(x, 1.6), zeta, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0, 1.5])
def test_derivatives(exponent):
    slopes = jax.jit(jax.grad(bounds.harmonic_number, argnums=(0, 1)))
    for count in (0.0, 1.0, 2.7, 400.0):
        in_count, in_exponent = slopes(count, exponent)
        # sum_j (x + j)^(-exponent - 1) of all j >= 1, exponent times; of exponent 0 all steps are alike.
        tail = exponent * scipy.special.zeta(exponent + 1, count + 1) if exponent else 1.0
        np.testing.assert_allclose(in_count, tail, rtol=1e-11)
        # At integers -sum_j log(j) j^(-exponent).
        if count == int(count):
            logs = math.fsum(math.log(j) * j**-exponent for j in range(1, int(count) + 1))
            np.testing.assert_allclose(in_exponent, -logs, rtol=1e-10, atol=1e-13)


def integral(count, exponent):
    """What the sum is at most."""
    return count ** (1 - exponent) / (1 - exponent)


def test_how_much_tighter_every_bound_is_than_with_an_integral(monkeypatch):
    """By a tenth at ten steps where nothing is late, less and less in time, and nowhere looser."""
    weights = np.asarray(damjax.weights.dirichlet(jax.random.key(0), 10))
    delays = damjax.routing.compile_routes(damjax.graphs.paper_network(), weights).delays
    mixing = damjax.graphs.metropolis_weights(damjax.graphs.paper_network())
    known = bounds.Constants(jnp.linspace(1.0, 2.0, 10), 4.0)
    scale, horizons = bounds.optimal_scale(weights, delays, known), (1, 10, 100, 1000, 10**5)
    at_once = bounds.optimal_scale(weights, 0 * delays, known)
    of_all = {
        "ogd": lambda T: bounds.ogd(weights, known, scale=at_once, horizon=T),
        "c_dogd": lambda T: bounds.c_dogd(mixing, known, scale=0.3, horizon=T),
        "printed": lambda T: bounds.dam_togd_printed(weights, delays, known, scale=scale, horizon=T),
        "mended": lambda T: bounds.dam_togd_mended(weights, delays, known, scale=scale, horizon=T),
        "weighted": lambda T: bounds.weighted_delay(weights, delays, known, scale=scale, horizon=T),
        "expected": lambda T: bounds.expected_delay(weights, delays, known, scale=scale, horizon=T),
    }
    exact = {name: np.array([bound(T) for T in horizons]) for name, bound in of_all.items()}
    monkeypatch.setattr("damjax.bounds.ingredients.harmonic_number", integral)
    loose = {name: np.array([bound(T) for T in horizons]) for name, bound in of_all.items()}
    gains = {name: (loose[name] - exact[name]) / loose[name] for name in of_all}
    for name, gain in gains.items():
        assert (gain > 0).all(), name
        assert (np.diff(gain[1:], axis=0) < 0).all(), name
    assert gains["ogd"][1] == pytest.approx(0.103, abs=1e-3)
    assert 0.03 < gains["weighted"][1].mean() < 0.1
    assert gains["weighted"][-1].max() < 0.003

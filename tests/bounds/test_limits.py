"""What no algorithm can promise: the block adversary, and how near to it the bounds come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import bounds

RADIUS, LISTENING = 1.5, np.array([[0.0, 1.0], [0.0, 1.0]])
UNIT = bounds.Constants(np.ones(2), 2 * RADIUS)
linear, ball = damjax.objectives.linear_attention(), damjax.domains.frobenius_ball(RADIUS)


def late_by(tau):
    return np.array([[0, tau], [0, 0]])


def in_bursts(tau):
    """Everything of a block of tau + 1 steps arrives at its end."""
    return lambda time: jnp.zeros((2, 2), jnp.int32).at[0, 1].set(tau - (time - 1) % (tau + 1))


def regret_against_blocks(delays, tau, num_blocks, signs, directions):
    """Agent 0's regret when the loss of block b is signs[b] along directions[b] in each of its steps."""
    cues = jnp.repeat(signs[:, None] * directions, tau + 1, axis=0)
    stream = damjax.Associations(jnp.stack([cues, cues], axis=1), jnp.ones((len(cues), 2, 1)))
    rate = damjax.schedules.inverse_sqrt(bounds.optimal_scale(LISTENING, late_by(tau), UNIT)[0])
    algorithm = damjax.dam_togd(linear, LISTENING, delays, learning_rate=rate, domain=ball, max_delay=tau)
    start, observe = jnp.zeros((2, 1, cues.shape[1])), damjax.regret.observe_losses(linear, LISTENING)
    _, losses = damjax.simulate(algorithm, start, stream, observe=observe)
    horizons = [(tau + 1) * blocks for blocks in (1, num_blocks // 2, num_blocks)]
    regret = damjax.regret.static_regret(losses, linear, LISTENING, ball, stream, horizons)[:, 0]
    return regret, jnp.stack([bounds.lower(LISTENING, late_by(tau), UNIT, horizon=T)[0] for T in horizons])


@pytest.mark.parametrize("tau", [0, 5])
@pytest.mark.parametrize("law", [late_by, in_bursts])
def test_the_block_adversary_meets_it(law, tau):
    """One new direction a block, with a random sign: exactly, whether answers come one by one or all at the end."""
    signs = jnp.asarray(np.random.default_rng(tau).choice([-1.0, 1], 30))
    regret, least = jax.jit(lambda: regret_against_blocks(law(tau), tau, 30, signs, jnp.eye(30)))()
    np.testing.assert_allclose(regret, least, rtol=1e-9)
    np.testing.assert_allclose(regret[-1], RADIUS * (tau + 1) * 30**0.5, rtol=1e-9)


def test_random_signs_in_one_dimension_meet_it_within_khintchines_constant():
    """In the mean over 2000 draws 1 / sqrt(2) of it or more, sqrt(2 / pi) in the long run."""
    tau, num_blocks = 3, 40
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1], (2000, num_blocks)))
    run = lambda signs: regret_against_blocks(in_bursts(tau), tau, num_blocks, signs, jnp.ones((num_blocks, 1)))  # noqa: E731
    regret, least = jax.jit(jax.vmap(run))(signs)
    ratios = np.asarray(regret) / np.asarray(least)
    ratios, noise = ratios.mean(axis=0), ratios.std(axis=0) / 2000**0.5
    assert (ratios > 0.5**0.5 - 3 * noise).all()
    assert ratios[0] == pytest.approx(1, abs=4 * noise[0])
    assert ratios[-1] == pytest.approx((2 / np.pi) ** 0.5, abs=4 * noise[-1] + 0.01)


def test_it_is_the_worst_that_some_of_the_interests_can_do():
    """Against a loop over who may be heard of; a horizon shorter than a block counts as one."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        weights = rng.dirichlet(np.ones(5), size=5) * (rng.random((5, 5)) < 0.6) + 1e-3 * np.eye(5)
        weights = weights / weights.sum(axis=1, keepdims=True)
        delays, slopes = rng.integers(0, 9, (5, 5)), rng.uniform(0.5, 2, 5)
        for horizon in (3, 50):
            least = bounds.lower(weights, delays, bounds.Constants(jnp.asarray(slopes), 3.0), horizon=horizon)
            for n in range(5):
                wanted = [m for m in range(5) if weights[n, m] > 0]
                by_hand = max(
                    1.5
                    * sum(weights[n, m] * slopes[m] for m in wanted if delays[n, m] >= tau)
                    * (min(tau + 1, horizon) * horizon) ** 0.5
                    for tau in {delays[n, m] for m in wanted}
                )
                np.testing.assert_allclose(least[n], by_hand, rtol=1e-12)
                assert least[n] <= 3.0 * (weights[n] @ slopes) * horizon


def test_edge_lists_single_precision_and_many_horizons_at_once():
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(5), size=5) * np.asarray([[1, 1, 0, 1, 0]])
    weights = weights / weights.sum(axis=1, keepdims=True)
    delays, known = rng.integers(0, 9, (5, 5)), bounds.Constants(rng.uniform(0.5, 2, 5), 3.0)
    least = bounds.lower(weights, delays, known, horizon=50)
    listed = damjax.weights.sparse(weights)
    columns = np.take_along_axis(delays, np.asarray(listed.agents), axis=1)
    np.testing.assert_allclose(bounds.lower(listed, columns, known, horizon=50), least, rtol=1e-12)
    spoiled = np.where(weights > 0, delays, np.nan)
    np.testing.assert_array_equal(bounds.lower(weights, spoiled, known, horizon=50), least)
    single = bounds.Constants(known.lipschitz.astype(np.float32), np.float32(3))
    by_horizon = jax.jit(jax.vmap(lambda T: bounds.lower(weights.astype(np.float32), delays, single, horizon=T)))
    rows = by_horizon(jnp.array([10.0, 50.0], jnp.float32))
    assert rows.dtype == jnp.float32
    np.testing.assert_allclose(rows[1], least, rtol=1e-5)


def test_how_near_the_weighted_delay_bound_comes():
    """A constant rate for a known horizon: from 2 to 2 sqrt(2) times as much; falling rates: 2 sqrt(2) to 4 times."""
    horizon, ratios = 1e12, {0.0: [], 0.5: []}
    for tau in (0, 1, 2, 8, 1000):
        problem = (LISTENING, late_by(tau), UNIT)
        least = bounds.lower(*problem, horizon=horizon)[0]
        for exponent, of_all in ratios.items():
            fixed = {"horizon": horizon, "exponent": exponent}
            scale = bounds.optimal_scale(*problem, **fixed)
            of_all.append(float(bounds.weighted_delay(*problem, scale=scale, **fixed)[0] / least))
            np.testing.assert_allclose(of_all[-1], 2 ** (1 + exponent) * ((1 + 2 * tau) / (1 + tau)) ** 0.5, rtol=1e-3)
    for exponent, of_all in ratios.items():
        low, high = 2 ** (1 + exponent), 2 ** (1.5 + exponent)
        assert of_all[0] == pytest.approx(low, rel=1e-5)
        assert (np.diff(of_all) > 0).all()
        assert of_all[-1] == pytest.approx(high, rel=2e-3)


def test_derivatives():
    """What a longer delay, a steeper loss, a larger set and one step more do to it."""
    weights = np.array([[0.5, 0.3, 0.2]] * 3)

    def total(weights, delays, slopes, diameter, horizon):
        return bounds.lower(weights, delays, bounds.Constants(slopes, diameter), horizon=horizon).sum()

    delays = jnp.array([[0.5, 2.2, 7.1], [3.3, 0.1, 5.2], [1.1, 4.2, 0.3]])
    point = [jnp.asarray(weights), delays, jnp.array([1.0, 2.0, 1.5]), jnp.asarray(3.0), jnp.asarray(90.0)]
    slopes = jax.grad(total, argnums=tuple(range(5)))(*point)
    rng = np.random.default_rng(0)
    for which in range(5):
        direction = jnp.asarray(rng.normal(size=np.shape(point[which])))
        ahead, behind = (
            [x + sign * 1e-6 * direction if i == which else x for i, x in enumerate(point)] for sign in (1, -1)
        )
        # Weights that do not sum to one are refused, but not while they are traced.
        at = jax.jit(total)
        np.testing.assert_allclose(
            jnp.sum(slopes[which] * direction), (at(*ahead) - at(*behind)) / 2e-6, rtol=1e-6, atol=1e-9
        )

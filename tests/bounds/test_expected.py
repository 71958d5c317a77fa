"""The bound on the mean over random delays and losses: its moments, runs over many seeds, and what it assumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import bounds, channels

linear = damjax.objectives.linear_attention()
keys_of = lambda number: jax.random.split(jax.random.key(0), number)  # noqa: E731


def late_and_lossy(key, mean, lost, max_delay):
    """Geometric delays of a given mean, but for one's own, and losses."""
    return channels.lossy(channels.geometric(1 / (1 + mean), key=key, max_delay=max_delay), lost, key=key)


def of_others(number, num_agents):
    """What is the case for all but one's own questions."""
    return number * (1 - jnp.eye(num_agents))


# How steep the messages of three others are, w_nm L_m, how late, and how likely they are lost.
SLOPES, MEAN, LOST = np.array([3.2, 1.7, 1.15]), 8.0, 0.26
LBAR = SLOPES.sum()


def moments(num_seeds, num_steps):
    """What arrives, kappa, and what is then still under way, F, over seeds, once the law has settled."""

    def one(key):
        waits = late_and_lossy(key, MEAN, LOST, 150).table(num_steps, (4, 4))[:, 0, 1:]
        arrive = jnp.where(waits >= 0, jnp.arange(num_steps, dtype=jnp.int32)[:, None] + waits, num_steps)
        worth = jnp.where(waits >= 0, SLOPES[None] / (1 - LOST), 0)
        kappa = jnp.zeros(num_steps).at[arrive].add(worth, mode="drop")
        return kappa, jnp.cumsum(worth.sum(axis=1)) - jnp.cumsum(kappa)

    kappa, under_way = jax.jit(jax.vmap(one))(keys_of(num_seeds))
    return np.asarray(kappa)[:, 150:], np.asarray(under_way)[:, 150:]


def test_the_moments_of_what_arrives():
    """E kappa^2 is below Lbar^2 + sum_m (w_nm L_m)^2 / (1 - p), and far above Lbar^2; E kappa F below Lbar^2 tb."""
    kappa, under_way = moments(400, 350)
    assert kappa.mean() == pytest.approx(LBAR, rel=0.01)
    square, alone = np.mean(kappa**2), LBAR**2
    limit = alone + np.sum(SLOPES**2) / (1 - LOST)
    assert (alone, limit) == (pytest.approx(36.6, abs=0.01), pytest.approx(56.1, abs=0.1))
    assert alone * 1.4 < square < limit
    drift, bound = np.mean(kappa * under_way), LBAR**2 * MEAN
    assert bound == pytest.approx(293, abs=1)
    assert 0.9 * bound < drift < bound
    # In closed form: the variance of a sum of coins, and that no message arrives while it is under way.
    assert square == pytest.approx(alone + np.sum(SLOPES**2) * (1 / (1 - LOST) - 1 / (1 + 2 * MEAN)), rel=0.01)
    assert drift == pytest.approx(bound - np.sum(SLOPES**2) * MEAN / (1 + 2 * MEAN), rel=0.01)


# Both listen to themselves and to each other, and want to go opposite ways; the other is worth more.
TWO, CUES = np.array([[0.4, 0.6], [0.6, 0.4]]), np.array([[1.0], [-1.0]])


def regret_of_two(key, *, reweight, num_steps, horizons):
    """Static regret of both under losses that never change; half of the other's answers never come."""
    ball = damjax.domains.frobenius_ball(1.0)
    algorithm = damjax.dam_togd(
        linear,
        TWO,
        late_and_lossy(key, 2.0, 0.5, 80),
        learning_rate=damjax.schedules.inverse_sqrt(0.5),
        domain=ball,
        reweight=reweight,
    )
    stream = damjax.Associations(jnp.tile(CUES, (num_steps, 1, 1)), jnp.ones((num_steps, 2, 1)))
    observe = damjax.regret.observe_losses(linear, TWO)
    _, losses = damjax.simulate(algorithm, jnp.zeros((2, 1, 1)), stream, observe=observe)
    return damjax.regret.static_regret(losses, linear, TWO, ball, stream, horizons)


def test_the_mean_regret_stays_below_it_because_what_arrives_makes_up_for_what_is_lost():
    horizons = [250, 2000]
    made_up, as_it_comes = (
        np.mean(
            jax.jit(jax.vmap(lambda key, on=on: regret_of_two(key, reweight=on, num_steps=2000, horizons=horizons)))(
                keys_of(32)
            ),
            axis=0,
        )
        for on in (True, False)
    )
    limit = np.stack(
        [
            bounds.expected_delay(
                TWO,
                of_others(2.0, 2),
                bounds.Constants(jnp.ones(2), 2.0),
                scale=0.5,
                horizon=horizon,
                loss_probability=of_others(0.5, 2),
            )
            for horizon in horizons
        ]
    )
    assert (made_up <= limit).all()
    # Otherwise it follows itself, the wrong way: linear in time.
    assert (as_it_comes[1] > limit[1]).all()
    assert (as_it_comes[1] > 7 * as_it_comes[0]).all()


def drawn_problem(seed):
    """Random interests, slopes, delays and losses; what is one's own is neither late nor lost."""
    rng = np.random.default_rng(seed)
    others = ~np.eye(4, dtype=bool)
    weights = rng.dirichlet(np.ones(4), size=4)
    means, lost = rng.uniform(0, 8, (4, 4)) * others, rng.uniform(0, 0.6, (4, 4)) * others
    return weights, means, lost, rng.uniform(0.5, 2, 4), float(rng.uniform(1, 4))


def test_random_problems_over_many_seeds():
    """Losses that stay the same for as long as answers take: what hurts most who hears late."""
    num_problems, num_steps, num_seeds = 24, 60, 64

    def one(weights, slopes, diameter, mean, lost, scale, cues, key):
        ball, rate = damjax.domains.frobenius_ball(diameter / 2), damjax.schedules.inverse_sqrt(scale)
        law = late_and_lossy(key, mean, lost, num_steps)
        algorithm = damjax.dam_togd(linear, weights, law, learning_rate=rate, domain=ball, reweight=True)
        stream = damjax.Associations(cues * slopes[None, :, None], jnp.ones((num_steps, 4, 1)))
        observe = damjax.regret.observe_losses(linear, weights)
        _, losses = damjax.simulate(algorithm, jnp.zeros((4, 1, 3)), stream, observe=observe)
        regret = damjax.regret.static_regret(losses, linear, weights, ball, stream, [num_steps])[0]
        limit = bounds.expected_delay(
            weights,
            of_others(mean, 4),
            bounds.Constants(slopes, diameter),
            scale=scale,
            horizon=num_steps,
            loss_probability=of_others(lost, 4),
        )
        return regret, limit

    rng = np.random.default_rng(0)
    weights, _, _, slopes, diameters = map(np.stack, zip(*map(drawn_problem, range(num_problems)), strict=True))
    means, lost, scales = rng.uniform(0, 8, num_problems), rng.uniform(0, 0.6, num_problems), rng.uniform(-3, 1, 24)
    cues = np.repeat(rng.normal(size=(num_problems, num_steps // 6, 1, 3)), 6, axis=1) * np.ones((1, 1, 4, 1))
    cues = cues / np.linalg.norm(cues, axis=-1, keepdims=True)
    over_seeds = jax.vmap(one, in_axes=(*[None] * 7, 0))
    over_problems = jax.jit(jax.vmap(over_seeds, in_axes=(*[0] * 7, None)))
    regret, limit = over_problems(weights, slopes, diameters, means, lost, np.exp(scales), cues, keys_of(num_seeds))
    mean, noise = np.mean(regret, axis=1), np.std(regret, axis=1) / num_seeds**0.5
    assert (mean <= limit[:, 0] + 3 * noise).all()
    assert (mean > 0.1 * limit[:, 0]).any()


def test_it_is_the_weighted_delay_bound_and_what_several_arrivals_cost():
    weights, means, lost, slopes, diameter = drawn_problem(0)
    known, fixed = bounds.Constants(jnp.asarray(slopes), diameter), {"scale": 0.7, "horizon": 90, "exponent": 0.4}
    several = np.sum((weights * slopes) ** 2 / (1 - lost), axis=1)
    of_rates = 0.7 * bounds.harmonic_number(90, 0.4)
    np.testing.assert_allclose(
        bounds.expected_delay(weights, means, known, **fixed, loss_probability=lost),
        bounds.weighted_delay(weights, means, known, **fixed) + several / 2 * of_rates,
        rtol=1e-12,
    )
    # One probability for all is an entry for each.
    np.testing.assert_allclose(
        bounds.expected_delay(weights, means, known, **fixed, loss_probability=0.3),
        bounds.expected_delay(weights, means, known, **fixed, loss_probability=np.full((4, 4), 0.3)),
        rtol=1e-12,
    )


def test_edge_lists_dtypes_and_what_nobody_wants():
    weights, means, lost, slopes, diameter = drawn_problem(1)
    weights = np.where(weights < 0.1, 0, weights)
    weights = weights / weights.sum(axis=1, keepdims=True)
    known = bounds.Constants(jnp.asarray(slopes), diameter)
    sparse = damjax.weights.sparse(weights)
    columns = np.asarray(sparse.agents)
    pick = lambda table: np.take_along_axis(table, columns, axis=1)  # noqa: E731
    fixed = {"scale": 0.7, "horizon": 90}
    whole = bounds.expected_delay(weights, means, known, **fixed, loss_probability=lost)
    listed = bounds.expected_delay(sparse, pick(means), known, **fixed, loss_probability=pick(lost))
    np.testing.assert_allclose(listed, whole, rtol=1e-12)
    wanted = weights > 0
    spoiled = np.where(wanted, means, np.nan), np.where(wanted, lost, 7.0)
    dirty = bounds.expected_delay(weights, spoiled[0], known, **fixed, loss_probability=spoiled[1])
    np.testing.assert_array_equal(dirty, whole)
    small = bounds.Constants(jnp.asarray(slopes, jnp.float32), np.float32(diameter))
    single = bounds.expected_delay(weights.astype(np.float32), means, small, **fixed, loss_probability=lost)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, whole, rtol=1e-5)


def test_derivatives_in_every_float_argument():
    def total(weights, means, lost, slopes, diameter, scale, horizon):
        known = bounds.Constants(slopes, diameter)
        return bounds.expected_delay(weights, means, known, scale=scale, horizon=horizon, loss_probability=lost).sum()

    point = [*map(jnp.asarray, (*drawn_problem(2), 0.7, 90.0))]
    at, slopes = jax.jit(total), jax.jit(jax.grad(total, argnums=tuple(range(7))))(*point)
    rng = np.random.default_rng(0)
    for which, slope in enumerate(slopes):
        direction = jnp.asarray(rng.normal(size=np.shape(point[which])))
        ahead, behind = (
            [x + sign * 1e-6 * direction if i == which else x for i, x in enumerate(point)] for sign in (1, -1)
        )
        np.testing.assert_allclose(jnp.sum(slope * direction), (at(*ahead) - at(*behind)) / 2e-6, rtol=1e-6)

"""Derivatives through whole runs: of regret in the rate and the weights, of bounds in links, in little memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import bounds
from tests.cases import DISTINCT, OBJECTIVES, case, connected_graph, interests, over

NUM_AGENTS, NUM_STEPS = 4, 60


def run_of(name, checkpoint_every=None, num_steps=NUM_STEPS):
    """Total regret of a DAM-TOGD run as a function of rate constant, weights and radius, and a point to take it at."""
    rng = np.random.default_rng(OBJECTIVES.index(name))
    made = case(rng, name, num_agents=NUM_AGENTS, num_steps=num_steps, key_dim=2)
    weights = interests(rng, NUM_AGENTS, density=0.8)
    delays = damjax.routing.compile_routes(connected_graph(rng, NUM_AGENTS), weights).delays

    def regret(scale, weights, radius=0.8):
        ball = damjax.domains.frobenius_ball(radius)
        algorithm = damjax.dam_togd(
            made.objective,
            weights,
            delays,
            learning_rate=damjax.schedules.inverse_sqrt(scale),
            domain=ball,
            max_delay=int(delays.max()),
        )
        _, losses = damjax.simulate(
            algorithm,
            jnp.zeros_like(made.params),
            made.stream,
            observe=damjax.regret.observe_losses(made.objective, weights),
            checkpoint_every=checkpoint_every,
        )
        found = damjax.regret.static_regret(losses, made.objective, weights, ball, made.stream, [num_steps])
        return found.sum()

    return jax.jit(regret), (0.3, jnp.asarray(weights))


@over(DISTINCT, common=("gated_linear_attention",))
def test_regret_is_differentiable_through_the_whole_run(name):
    """In the rate constant and in the weights, with and without the projection at work."""
    regret, (scale, weights) = run_of(name)
    # The values come with the slopes: a program less to compile.
    backwards, forwards = jax.jit(jax.value_and_grad(regret, argnums=(0, 1))), jax.jit(jax.jacfwd(regret))
    step = 1e-6
    # Along the weights' support: an interest that appears would need a route of its own.
    direction = jnp.asarray(np.random.default_rng(9).normal(size=weights.shape) * (np.asarray(weights) > 0))
    # Without a bound in sight cross-entropy has no best memory to be certified.
    for radius in (0.3, 5.0 if name == "cross_entropy" else 30.0):
        at = lambda scale, weights, radius=radius: backwards(scale, weights, radius)[0]  # noqa: E731
        _, slopes = backwards(scale, weights, radius)
        difference = (at(scale + step, weights) - at(scale - step, weights)) / (2 * step)
        np.testing.assert_allclose(slopes[0], difference, rtol=1e-5, atol=1e-6)
        difference = (at(scale, weights + step * direction) - at(scale, weights - step * direction)) / (2 * step)
        np.testing.assert_allclose(jnp.sum(slopes[1] * direction), difference, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(forwards(scale, weights, radius), slopes[0], rtol=1e-9, atol=1e-9)


@pytest.mark.long
def test_checkpoints_change_no_number():
    """Segments that do not divide the run, and one longer than it."""
    plain, point = run_of("delta_net")
    both = lambda run: jax.jit(jax.value_and_grad(run, argnums=(0, 1)))(*point)  # noqa: E731
    expected, slopes = both(plain)
    for checkpoint_every in (7, 100):
        found, segmented = both(run_of("delta_net", checkpoint_every=checkpoint_every)[0])
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        for slope, wanted in zip(segmented, slopes, strict=True):
            np.testing.assert_allclose(slope, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.long
def test_checkpoints_of_other_runs():
    """A resumed run, a stream that is a function of the time, and a bad number."""
    made = case(np.random.default_rng(0), "delta_net", num_agents=2, num_steps=23)
    algorithm = damjax.ogd(made.objective, np.eye(2), learning_rate=0.1, domain=damjax.domains.frobenius_ball(1.0))
    run = functools.partial(damjax.simulate, algorithm, made.params)

    def at(time):
        return jax.tree.map(lambda field: field[time - 1], made.stream)

    _, whole = run(made.stream)
    for _, found in (
        run(made.stream, checkpoint_every=5),
        run(made.stream, checkpoint_every=23),
        run(at, num_steps=23, checkpoint_every=1),
        damjax.resume(algorithm, algorithm.init(made.params), made.stream, checkpoint_every=4),
    ):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), found, whole)
    with pytest.raises(ValueError, match="checkpoint_every must be a positive integer, but it is 0"):
        run(made.stream, checkpoint_every=0)


@pytest.mark.long
def test_a_long_run_is_differentiable_in_little_memory():
    """T = 20000, N = 10, d = 5: temporaries as XLA counts them, far below 4 GiB, and a fraction with checkpoints."""
    num_steps = 20_000
    weights = damjax.weights.dirichlet(jax.random.key(0), 10)
    delays = damjax.routing.compile_routes(damjax.graphs.paper_network(), np.asarray(weights)).delays
    objective, ball = damjax.objectives.delta_net(), damjax.domains.frobenius_ball(40.0)

    def regret(scale, weights, model, checkpoint_every):
        rate = damjax.schedules.inverse_sqrt(scale)
        algorithm = damjax.dam_togd(
            objective, weights, delays, learning_rate=rate, domain=ball, max_delay=int(delays.max())
        )
        stream = functools.partial(model.associations, model.targets(0.5))
        _, losses = damjax.simulate(
            algorithm,
            jnp.zeros((10, 5, 5)),
            stream,
            num_steps=num_steps,
            observe=damjax.regret.observe_losses(objective, weights),
            checkpoint_every=checkpoint_every,
        )
        return damjax.regret.static_regret(losses, objective, weights, ball, stream, [num_steps]).sum()

    model = damjax.streams.draw_linear_model(jax.random.key(1), num_steps=num_steps)
    taken, slopes = [], []
    for checkpoint_every in (None, 141):
        fun = functools.partial(regret, checkpoint_every=checkpoint_every)
        compiled = jax.jit(jax.grad(fun, argnums=(0, 1))).lower(1.5, weights, model).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        taken.append(memory.temp_size_in_bytes)
        slopes.append(compiled(1.5, weights, model))
    assert taken[0] < 2**30
    assert taken[1] < taken[0] / 10
    assert all(jnp.isfinite(slope).all() for slope in slopes[0])
    np.testing.assert_allclose(slopes[1][0], slopes[0][0], rtol=1e-6)
    np.testing.assert_allclose(slopes[1][1], slopes[0][1], rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_the_best_rate_constant_of_a_run_by_its_derivative():
    """The derivative changes sign between the neighbours of the best constant of a grid."""
    objective, ball = damjax.objectives.delta_net(), damjax.domains.frobenius_ball(20.0)
    weights, delays = (
        np.full((3, 3), 1 / 3),
        damjax.routing.compile_routes(damjax.graphs.path(3), np.full((3, 3), 1 / 3)).delays,
    )
    stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=3, num_steps=200)

    def regret(scale):
        rate = damjax.schedules.inverse_sqrt(scale)
        algorithm = damjax.dam_togd(objective, weights, delays, learning_rate=rate, domain=ball)
        observe = damjax.regret.observe_losses(objective, weights)
        _, losses = damjax.simulate(algorithm, jnp.zeros((3, 5, 5)), stream, observe=observe)
        return damjax.regret.static_regret(losses, objective, weights, ball, stream, [200]).sum()

    grid = jnp.geomspace(0.05, 5, 25)
    best = int(jnp.argmin(jax.jit(jax.vmap(regret))(grid)))
    assert 0 < best < 24
    slope = jax.jit(jax.grad(regret))
    assert slope(grid[best - 1]) < 0 < slope(grid[best + 1])


@pytest.mark.long
def test_which_link_is_worth_shortening():
    """The derivative of the bound in the links' lengths is what removing a hop gains, link by link."""
    graph, weights = damjax.graphs.paper_network(), np.asarray(damjax.weights.dirichlet(jax.random.key(0), 10))
    routes = damjax.routing.compile_routes(graph, weights)
    links, crosses = damjax.routing.path_links(routes)
    known = bounds.Constants(jnp.linspace(1.0, 2.0, 10), 4.0)
    scale = bounds.optimal_scale(weights, routes.delays, known)

    def total(lengths):
        return bounds.weighted_delay(
            weights, 2.0 * crosses.astype(float) @ lengths, known, scale=scale, horizon=1000
        ).sum()

    ones = jnp.ones(len(links))
    slopes = jax.grad(total)(ones)
    gains = np.array([total(ones) - total(ones.at[e].set(0)) for e in range(len(links))])
    # Linear in the delays, as every agent's shortest is that to itself.
    np.testing.assert_allclose(slopes, gains, rtol=1e-9)
    assert (gains > 0).all()
    # By hand, the link that most weighted messages cross.
    steep = weights @ np.asarray(known.lipschitz)
    price = steep * np.asarray(scale) * np.sum(np.arange(1.0, 1001) ** -0.5) + 4.0
    loads = 2 * np.einsum("nme,nm,m,n->e", crosses, weights, np.asarray(known.lipschitz), price)
    np.testing.assert_allclose(slopes, loads, rtol=1e-9)

"""vmap_last is jax.vmap: rule by rule, on whole runs, under grad and jit, and for operations it has no rule for."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import damjax
from damjax.batching import vmap_last
from tests.cases import case
from tests.test_algorithms import ALGORITHMS, conformance

rng = np.random.default_rng(0)
MATRICES, VECTORS = rng.normal(size=(7, 3, 4)), rng.normal(size=(7, 4))


def both(fun, *args, in_axes: Any = 0):
    found, expected = jax.jit(vmap_last(fun, in_axes))(*args), jax.jit(jax.vmap(fun, in_axes))(*args)
    chex.assert_trees_all_close(found, expected, rtol=1e-12)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)


FUNCTIONS = {
    "elementwise": lambda a, v: jnp.sin(a) * v + jnp.where(a > 0, a, -2.0) ** 2,
    "scalars": lambda a, v: jnp.clip(a, v[0], 3.0) + jnp.sum(v),
    "scalar predicate": lambda a, v: jnp.where(v[0] > 0, a, a + 1),
    "implicit ones": lambda a, v: a[:, None] * v[None, :, None] + a[None, :1],
    "reshape and transpose": lambda a, v: jnp.transpose(a).reshape(2, 6) @ a.ravel()[:6],
    "slices": lambda a, v: (a[1:, ::2], a[-1], v[::-1], a[:, None, 2]),
    "concatenate": lambda a, v: jnp.concatenate([a, v[None], jnp.ones((1, 4))]),
    "reductions": lambda a, v: (a.sum(0), a.max(), a.min(1), (a > 0).all(), (a > 1).any(0), a.prod(), a.mean()),
    "cumulative": lambda a, v: (jnp.cumsum(a, axis=1), jnp.cumprod(v), lax.cummax(a, axis=0, reverse=True)),
    "positions": lambda a, v: (jnp.argmax(a, axis=1), jnp.argsort(v), jnp.sort(a, axis=0)),
    "gather, fixed places": lambda a, v: (
        a[jnp.array([2, 0])],
        v[jnp.array([[1, 3], [0, 0]])],
        a[jnp.array([0, 1]), 2],
    ),
    "gather, places of each run": lambda a, v: jnp.take(a, jnp.argmax(v), axis=1),
    "scatter": lambda a, v: (a.at[1].add(v), a.at[jnp.array([0, 2]), 1].set(5.0), v.at[jnp.argmax(v)].set(0.0)),
    "dynamic slices": lambda a, v: lax.dynamic_slice(a, (1, 0), (2, 3)) + v[:3],
    "dynamic slices of each run": lambda a, v: lax.dynamic_slice(v, (jnp.argmax(v),), (2,)),
    "dynamic update": lambda a, v: lax.dynamic_update_slice(jnp.zeros((5, 4)), a, (1, 0)),
    "dynamic update of each run": lambda a, v: lax.dynamic_update_slice(v, jnp.ones(2), (jnp.argmin(v),)),
    "products": lambda a, v: (a @ v, a @ a.T, jnp.einsum("ij,j,kj->ik", a, v, a)),
    "linear algebra": lambda a, v: jnp.linalg.eigvalsh(a @ a.T) + jnp.linalg.norm(v),
    "custom derivatives": lambda a, v: jax.nn.logsumexp(a) + jax.nn.relu(v).sum() + jax.nn.softplus(v[0]),
    "cond, one predicate": lambda a, v: lax.cond(jnp.asarray(3) > 2, lambda: (a, 1.0), lambda: (0 * a, 2.0)),
    "cond, each its own": lambda a, v: lax.cond(v[0] > 0, lambda x: x + 1, lambda x: -x, a),
    "switch": lambda a, v: lax.switch(jnp.asarray(1), [jnp.sin, jnp.cos], a),
    "while": lambda a, v: lax.while_loop(lambda x: jnp.sum(x) < 50, lambda x: x + jnp.abs(v) + 1, v),
    "fori": lambda a, v: lax.fori_loop(0, 3, lambda i, x: x * 1.5 + i, a),
    "nested jit": lambda a, v: jax.jit(lambda x: x @ v)(a),
    "unmapped result": lambda a, v: (jnp.arange(3.0), a),
    "integers": lambda a, v: (jnp.floor(10 * a).astype(int) % 3, jnp.floor(v).astype(jnp.int32) // 2),
    "checkpoint": lambda a, v: jax.checkpoint(lambda x: jnp.sin(x) @ v)(a),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_vmap(name):
    matrices, vectors = jnp.asarray(MATRICES), jnp.asarray(VECTORS)
    both(FUNCTIONS[name], matrices, vectors)
    both(FUNCTIONS[name], matrices, vectors[0], in_axes=(0, None))
    both(FUNCTIONS[name], matrices[0], vectors, in_axes=(None, 0))
    both(FUNCTIONS[name], jnp.moveaxis(matrices, 0, -1), vectors, in_axes=(-1, 0))


@pytest.mark.parametrize("reverse", [False, True])
def test_scans_whose_carry_becomes_mapped_late(reverse):
    """b is mapped only through a, and c only through b: the flags need several passes to settle."""

    def fun(a, v):
        def body(carry, row):
            x, b, c, fixed = carry
            return (x + row.sum(), b + x, c + b, fixed + 1), (row * 2, fixed, c)

        return lax.scan(body, (jnp.sum(v), 0.0, 0.0, 0), a, reverse=reverse)

    both(fun, MATRICES, VECTORS)
    both(lambda v: lax.scan(lambda c, _: (c * 2, c), v, length=3), VECTORS)
    both(lambda v: lax.scan(lambda c, x: (c + x, c), v[0], jnp.arange(3.0)), VECTORS)


def test_the_gradient_of_a_custom_derivative_is_kept():
    """logsumexp at -inf: its own rule gives 0, the derivative of its formula NaN."""
    point = jnp.full((7, 4), -jnp.inf).at[:, 0].set(1.0)
    total = lambda transform: jax.grad(lambda x: transform(jax.nn.logsumexp)(x).sum())(point)  # noqa: E731
    np.testing.assert_array_equal(total(vmap_last), total(jax.vmap))
    assert np.isfinite(total(vmap_last)).all()


def test_keys_are_mapped():
    keys = jax.random.split(jax.random.key(0), 6)
    both(lambda key: damjax.weights.dirichlet(key, 3), keys)
    both(lambda key: damjax.streams.linear_model(key, num_agents=2, num_steps=4), keys)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_whole_runs_and_their_gradients(name):
    problems = [case(np.random.default_rng(seed), "delta_net", num_agents=5, num_steps=15) for seed in range(4)]
    streams = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(p.stream for p in problems))
    rates = jnp.array([0.1, 0.2, 0.4, 0.8])

    def run(rate, stream):
        return damjax.simulate(conformance(name, rate=rate), problems[0].params, stream)

    both(run, rates, streams)
    both(run, rates, problems[0].stream, in_axes=(0, None))

    def slopes(transform):
        return jax.grad(lambda r: jnp.sum(transform(run)(r, streams)[0].params ** 2))(rates)

    np.testing.assert_allclose(slopes(vmap_last), slopes(jax.vmap), rtol=1e-9)


@pytest.mark.parametrize("name", ["delta_net", "gated_softmax_attention", "cross_entropy"])
def test_regret_of_every_kind_of_objective(name):
    made = case(np.random.default_rng(0), name, num_agents=5, num_steps=12)
    delays = damjax.routing.compile_routes(damjax.graphs.ring(5), np.full((5, 5), 0.2)).delays

    def regret(rate, radius):
        ball, weights = damjax.domains.frobenius_ball(radius), np.full((5, 5), 0.2)
        algorithm = damjax.dam_togd(made.objective, weights, delays, learning_rate=rate, domain=ball)
        observe = damjax.regret.observe_losses(made.objective, weights)
        _, losses = damjax.simulate(algorithm, 0 * made.params, made.stream, observe=observe)
        return damjax.regret.static_regret(losses, made.objective, weights, ball, made.stream, [4, 12])

    both(regret, jnp.array([0.1, 0.3, 0.5]), jnp.array([0.5, 1.0, 9.0]))


def test_it_nests():
    def fun(rate, a):
        return jnp.sin(rate * a) @ a.T

    rates = jnp.arange(3.0)
    inner, plain = vmap_last(fun, (0, None)), jax.vmap(fun, (0, None))
    expected = jax.vmap(plain, (None, 0))(rates, MATRICES)
    np.testing.assert_allclose(vmap_last(inner, (None, 0))(rates, MATRICES), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(inner, (None, 0))(rates, MATRICES), expected, rtol=1e-12)


def test_the_runs_do_stay_last():
    """No transposition inside the scan of DAM-TOGD: the point of the exercise."""
    made = case(np.random.default_rng(0), "delta_net", num_agents=5, num_steps=15)

    def run(rate):
        return damjax.simulate(conformance("dam_togd", rate=rate), made.params, made.stream)[0].params

    (scan,) = [eqn for eqn in jax.make_jaxpr(vmap_last(run))(jnp.ones(6)).eqns if eqn.primitive.name == "scan"]
    body = str(scan.params["jaxpr"])
    assert "5,5,2,6]" in body  # the residuals of a pair, with the six runs behind
    assert "transpose" not in body


def test_bad_input():
    with pytest.raises(ValueError, match="in_axes must be 0, -1 or None for each of 1 arguments, but it is 1"):
        vmap_last(jnp.sin, in_axes=1)(VECTORS)
    for args, in_axes in (((VECTORS, VECTORS[:3]), 0), ((VECTORS,), (None,)), ((1.0,), 0)):
        with pytest.raises(ValueError, match="one common leading length, but their shapes are"):
            vmap_last(lambda *xs: sum(xs), in_axes=in_axes)(*args)


def test_arguments_that_are_not_mapped_stay_static():
    delays = np.zeros((5, 5), int)  # concrete, so that max_delay can be taken from it
    made = case(np.random.default_rng(0), "delta_net", num_agents=5, num_steps=3)

    def run(rate, delays):
        ball = damjax.domains.frobenius_ball(1.0)
        algorithm = damjax.dam_togd(made.objective, np.eye(5), delays, learning_rate=rate, domain=ball)
        return damjax.simulate(algorithm, made.params, made.stream)[0].params

    both(lambda rate: run(rate, delays), jnp.array([0.1, 0.2]))
    np.testing.assert_array_equal(
        vmap_last(run, (0, None))(jnp.array([0.1, 0.2]), delays),
        jax.vmap(run, (0, None))(jnp.array([0.1, 0.2]), delays),
    )


def test_an_empty_batch():
    assert vmap_last(lambda v: v.sum())(jnp.zeros((0, 4))).shape == (0,)

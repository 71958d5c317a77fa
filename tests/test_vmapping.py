"""vmap_last is jax.vmap: on a table of functions, under grad, jit, nesting and jax.shard_map, and on whole runs."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.ode import odeint
from jax.extend.core import ClosedJaxpr, Jaxpr
from packaging.version import Version

import damjax
from damjax.vmapping import RULES, rule_of, vmap_last
from tests.algorithms.test_algorithms import ALGORITHMS, conformance
from tests.cases import case, in_the_long_run

rng = np.random.default_rng(0)
MATRICES, VECTORS = rng.normal(size=(7, 3, 4)), rng.normal(size=(7, 4))
NEWEST_TRIED = "0.12.0.1"


@jax.custom_batching.custom_vmap
def one_answer(place):
    return place >= 0


@one_answer.def_vmap
def _(axis_size, in_batched, place):
    return one_answer(place[0]), False


class Case(NamedTuple):
    """A function of a matrix (3, 4) and a vector (4,), and whether it has a gradient."""

    fun: Callable[..., Any]
    smooth: bool = True


def both(fun, *args, in_axes: Any = 0):
    mapped, expected = jax.jit(lambda *args: (vmap_last(fun, in_axes)(*args), jax.vmap(fun, in_axes)(*args)))(*args)
    chex.assert_trees_all_close(mapped, expected, rtol=1e-12)
    chex.assert_trees_all_equal_shapes_and_dtypes(mapped, expected)


@jax.custom_vjp
def scaled_by_a_constant(v):
    return v * jnp.arange(4.0)


scaled_by_a_constant.defvjp(
    lambda v: (v * jnp.arange(4.0), (jnp.arange(4),)),
    # Indexed by a tracer, which a NumPy array would not allow.
    lambda kept, slope: (lax.fori_loop(0, 4, lambda i, x: x.at[i].set(slope[i] * kept[0][i]), slope),),
)


@jax.custom_jvp
def softplus(x):
    return jnp.log1p(jnp.exp(x))


softplus.defjvp(lambda x, dx: (softplus(x[0]), jax.nn.sigmoid(x[0]) * dx[0]))


def old_bits(a, v):
    with jax.threefry_partitionable(False):
        return jax.random.normal(jax.random.key(lax.convert_element_type(10 * v[0], jnp.uint32)), (5,))


def key_of(v):
    return jax.random.key(lax.convert_element_type(jnp.abs(10 * v[0]), jnp.uint32))


def mutable(a, v):
    """A mutable array that becomes mapped by what is written to it; plain where jax has none yet."""
    if not hasattr(jax, "new_ref"):
        return a.sum(0).at[0].add(1)
    ref = jax.new_ref(jnp.zeros(4))
    ref[...] = a.sum(0)
    ref[0] += 1
    return ref[...]


def late_carry(reverse):
    """b is mapped only through a, and c only through b: the flags need several passes to settle."""

    def fun(a, v):
        def body(carry, row):
            x, b, c, fixed = carry
            return (x + row.sum(), b + x, c + b, fixed + 1), (row * 2, fixed, c)

        return lax.scan(body, (jnp.sum(v), 0.0, 0.0, 0), a, reverse=reverse)

    return fun


def convolved(a, v):
    image, kernel = a[None, None], jnp.outer(v, v)[None, None, :2, :3]
    return lax.conv(image, kernel, (1, 1), "SAME")[0]


FUNCTIONS = {
    # elementwise
    "elementwise": Case(lambda a, v: jnp.sin(a) * v + jnp.where(a > 0, a, -2.0) ** 2),
    "scalars": Case(lambda a, v: jnp.clip(a, v[0], 3.0) + jnp.sum(v)),
    "scalar predicate": Case(lambda a, v: jnp.where(v[0] > 0, a, a + 1)),
    "implicit ones": Case(lambda a, v: a[:, None] * v[None, :, None] + a[None, :1]),
    "special functions": Case(lambda a, v: (jax.scipy.special.erfinv(jnp.tanh(a)), jax.lax.lgamma(jnp.abs(v) + 1))),
    "powers and roots": Case(lambda a, v: (jnp.abs(a) ** v, jnp.exp2(a), jnp.cbrt(v), lax.rsqrt(a * a + 1))),
    "angles": Case(lambda a, v: (jnp.arctan2(a, v), jnp.tan(v), jnp.sinh(v), jnp.cosh(v), jnp.expm1(a))),
    "logistic and erf": Case(lambda a, v: (lax.logistic(a), lax.erf(v), jnp.array(a, copy=True))),
    "the next number": Case(lambda a, v: jnp.nextafter(a, v), False),
    "integers": Case(lambda a, v: (jnp.floor(10 * a).astype(int) % 3, jnp.floor(v).astype(jnp.int32) // 2), False),
    "bits": Case(lambda a, v: (jnp.floor(a).astype(jnp.int32) << 2) ^ 5, False),
    "booleans": Case(lambda a, v: jnp.logical_xor(a > 0, v > 0) | ~(a > 1), False),
    "low precision": Case(lambda a, v: (a.astype(jnp.bfloat16) * v.astype(jnp.bfloat16)).astype(jnp.float32), False),
    "complex numbers": Case(lambda a, v: jnp.abs(jnp.exp(1j * a) * v) + (1j * a).imag),
    "rounding": Case(lambda a, v: (jnp.round(a), jnp.sign(v), jnp.isfinite(a)), False),
    "stop_gradient": Case(lambda a, v: lax.stop_gradient(a) * v),
    "custom derivatives": Case(lambda a, v: jax.nn.logsumexp(a) + jax.nn.relu(v).sum() + jax.nn.softplus(v[0])),
    "custom_jvp": Case(lambda a, v: softplus(a) * v),
    "custom_vjp with a constant": Case(lambda a, v: scaled_by_a_constant(v) + a.sum()),
    # shapes
    "reshape and transpose": Case(lambda a, v: jnp.transpose(a).reshape(2, 6) @ a.ravel()[:6]),
    "reshape in columns": Case(lambda a, v: (a.ravel(order="F"), a.reshape(2, 6, order="F"))),
    "reshape by dimensions": Case(lambda a, v: lax.reshape(a, (6, 2), dimensions=(1, 0)) * v[:2]),
    "slices": Case(lambda a, v: (a[1:, ::2], a[-1], v[::-1], a[:, None, 2])),
    "concatenate": Case(lambda a, v: jnp.concatenate([a, v[None], jnp.ones((1, 4))])),
    "pad": Case(lambda a, v: jnp.pad(a, ((1, 0), (0, 2)), constant_values=3.0) + jnp.pad(v, 1)),
    "split": Case(lambda a, v: jnp.split(a, [1, 3], axis=1)),
    "tile and repeat": Case(lambda a, v: (jnp.tile(v, (2, 3)), jnp.repeat(a, 2, axis=0), jnp.roll(a, 1, axis=1))),
    "triangles": Case(lambda a, v: (jnp.triu(a), jnp.diag(v), jnp.outer(v, v), jnp.kron(a, v))),
    "empty arrays": Case(lambda a, v: (a[:0], jnp.concatenate([v[:0], v]))),
    "unmapped result": Case(lambda a, v: (jnp.arange(3.0), a)),
    # reductions, sums and order
    "reductions": Case(lambda a, v: (a.sum(0), a.max(), a.min(1), a.prod(), a.mean(), a.std())),
    "logical reductions": Case(lambda a, v: ((a > 0).all(), (a > 1).any(0), jnp.count_nonzero(a > 0)), False),
    "cumulative": Case(
        lambda a, v: (jnp.cumsum(a, axis=1), jnp.cumprod(v), lax.cummax(a, axis=0, reverse=True), lax.cummin(v))
    ),
    "cumulative logsumexp": Case(lambda a, v: lax.cumlogsumexp(a, axis=1)),
    "positions": Case(lambda a, v: (jnp.argmax(a, axis=1), jnp.argsort(v), jnp.argmin(a)), False),
    "sort": Case(lambda a, v: (jnp.sort(a, axis=0), lax.top_k(v, 2)[0])),
    "sort of several": Case(lambda a, v: lax.sort((v, a[0]), num_keys=1)),
    "median and quantiles": Case(lambda a, v: (jnp.median(a, axis=0), jnp.quantile(v, 0.3))),
    "windows": Case(lambda a, v: lax.reduce_window(a, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID")),
    "own reduction": Case(lambda a, v: lax.reduce(a, 1.0, lambda x, y: x * y, (0,)), False),
    "associative scan": Case(lambda a, v: lax.associative_scan(jnp.multiply, a, axis=1)),
    "softmax": Case(lambda a, v: (jax.nn.softmax(a, axis=0), jax.nn.log_softmax(v))),
    # places
    "gather, fixed places": Case(
        lambda a, v: (a[jnp.array([2, 0])], v[jnp.array([[1, 3], [0, 0]])], a[jnp.array([0, 1]), 2])
    ),
    "gather, places of each run": Case(lambda a, v: jnp.take(a, jnp.argmax(v), axis=1)),
    "gather, outside": Case(lambda a, v: (a.at[jnp.array([5, 1])].get(mode="fill", fill_value=7.0), v[jnp.array([9])])),
    "take_along_axis": Case(lambda a, v: jnp.take_along_axis(a, jnp.argsort(a, axis=1), axis=1)),
    "scatter": Case(lambda a, v: (a.at[1].add(v), a.at[jnp.array([0, 2]), 1].set(5.0), v.at[jnp.argmax(v)].set(0.0))),
    "scatter, extremes": Case(lambda a, v: (a.at[0].max(v), a.at[:, 1].min(0.0), v.at[jnp.array([1, 1])].add(2.0))),
    "segments": Case(lambda a, v: jax.ops.segment_sum(v, jnp.array([0, 0, 1, 1]), 2)),
    "searchsorted": Case(lambda a, v: jnp.searchsorted(jnp.sort(v), a[0]), False),
    "dynamic slices": Case(lambda a, v: lax.dynamic_slice(a, (1, 0), (2, 3)) + v[:3]),
    "dynamic slices of each run": Case(lambda a, v: lax.dynamic_slice(v, (jnp.argmax(v),), (2,))),
    "dynamic update": Case(lambda a, v: lax.dynamic_update_slice(jnp.zeros((5, 4)), a, (1, 0))),
    "scatter, set": Case(lambda a, v: jnp.zeros((5, 4)).at[jnp.array([3, 0]), :2].set(a[:2, :2])),
    "scatter, added": Case(lambda a, v: jnp.zeros((5, 4)).at[jnp.array([3, 3]), :2].add(a[:2, :2])),
    "one answer for all runs": Case(lambda a, v: jnp.where(one_answer(jnp.argmin(v)), a, 2 * a)),
    "dynamic update of each run": Case(lambda a, v: lax.dynamic_update_slice(v, jnp.ones(2), (jnp.argmin(v),))),
    # products
    "products": Case(lambda a, v: (a @ v, a @ a.T, jnp.einsum("ij,j,kj->ik", a, v, a), jnp.tensordot(a, a, 2))),
    "batched products": Case(
        lambda a, v: jnp.einsum("nij,njk->nik", a[:, :, None] * v, v[None, None] * a[:, :1, None])
    ),
    "convolution": Case(convolved),
    "convolution, nested": Case(lambda a, v: vmap_last(lambda row: convolved(row * a, v))(a)),
    "Fourier": Case(lambda a, v: jnp.fft.rfft(a, axis=1).real),
    "linear algebra": Case(lambda a, v: jnp.linalg.eigvalsh(a @ a.T) + jnp.linalg.norm(v)),
    "factors": Case(lambda a, v: jnp.linalg.cholesky(a @ a.T + jnp.eye(3))),
    "solve": Case(lambda a, v: (jnp.linalg.solve(a @ a.T + jnp.eye(3), a @ v), jnp.linalg.det(a[:, :3]))),
    "conjugate gradients": Case(
        lambda a, v: jax.scipy.sparse.linalg.cg(lambda x: a.T @ (a @ x) + x, v, maxiter=20)[0], False
    ),
    # control flow
    "cond, one predicate": Case(lambda a, v: lax.cond(jnp.asarray(3) > 2, lambda: (a, 1.0), lambda: (0 * a, 2.0))),
    "cond, each its own": Case(lambda a, v: lax.cond(v[0] > 0, lambda x: x + 1, lambda x: -x, a)),
    "switch": Case(lambda a, v: lax.switch(jnp.asarray(1), [jnp.sin, jnp.cos], a)),
    "while": Case(lambda a, v: lax.while_loop(lambda x: jnp.sum(x) < 50, lambda x: x + jnp.abs(v) + 1, v), False),
    "fori": Case(lambda a, v: lax.fori_loop(0, 3, lambda i, x: x * 1.5 + i, a)),
    "fori, length of each run": Case(lambda a, v: lax.fori_loop(0, jnp.argmax(v), lambda i, x: x * v, v), False),
    "scan whose carry becomes mapped late": Case(late_carry(reverse=False)),
    "scan backwards": Case(late_carry(reverse=True)),
    "scan without slices": Case(lambda a, v: lax.scan(lambda c, _: (c * 2 + v, c), v, length=3)),
    "scan over what is shared": Case(lambda a, v: lax.scan(lambda c, x: (c + x, c), v[0], jnp.arange(3.0))),
    "scan of no steps": Case(lambda a, v: lax.scan(lambda c, x: (c + x, c), v, a[:0])),
    "scan unrolled": Case(lambda a, v: lax.scan(lambda c, x: (jnp.sin(c) + x, c[0]), v, a, unroll=2)),
    "scan of a cond": Case(lambda a, v: lax.scan(lambda c, x: (lax.cond(x[0] > 0, jnp.sin, jnp.cos, c), x * 2), v, a)),
    "scan with a constant": Case(lambda a, v: lax.scan(lambda c, x: (c @ jnp.ones((4, 4)) / 4 + x * v, None), v, a)[0]),
    "scan of keys": Case(
        lambda a, v: lax.scan(lambda k, _: (jax.random.fold_in(k, 1), jax.random.normal(k)), key_of(v), length=3)[1],
        False,
    ),
    "map": Case(lambda a, v: lax.map(lambda row: row @ v, a)),
    # calls and derivatives within
    "nested jit": Case(lambda a, v: jax.jit(lambda x: x @ v)(a)),
    "checkpoint": Case(lambda a, v: jax.checkpoint(lambda x: jnp.sin(x) @ v)(a)),
    "checkpoint with a policy": Case(
        lambda a, v: jax.checkpoint(lambda x: jnp.sin(x @ v), policy=jax.checkpoint_policies.dots_saveable)(a)
    ),
    "checkpoint within a scan": Case(
        lambda a, v: lax.scan(jax.checkpoint(lambda c, x: (jnp.sin(c) * x, c.sum()), prevent_cse=False), v, a)
    ),
    "gradient of a checkpoint": Case(lambda a, v: jax.grad(lambda x: jax.checkpoint(jnp.sin)(x) @ v @ jnp.ones(3))(a)),
    "gradient": Case(lambda a, v: jax.grad(lambda x: jnp.sum(jnp.tanh(a @ x)))(v)),
    "Hessian": Case(lambda a, v: jax.hessian(lambda x: jnp.sum(jnp.tanh(a @ x)))(v)),
    "vmap within": Case(lambda a, v: jax.vmap(lambda row: jnp.sin(row) @ v)(a)),
    "vmap_last within": Case(lambda a, v: vmap_last(lambda row, v: jnp.sin(row) @ v, (0, None))(a, v)),
    "barrier": Case(lambda a, v: lax.optimization_barrier((a * 2, v, 3.0))),
    "mutable arrays": Case(mutable, False),
    "callback": Case(
        lambda a, v: jax.pure_callback(
            lambda x: np.sin(x), jax.ShapeDtypeStruct((3, 4), a.dtype), a, vmap_method="expand_dims"
        ),
        False,
    ),
    # random bits
    "random": Case(lambda a, v: (jax.random.normal(key_of(v), (3,)), jax.random.permutation(key_of(v), 5)), False),
    "random choices": Case(
        lambda a, v: (jax.random.categorical(key_of(v), a), jax.random.choice(key_of(v), 5, (2,))), False
    ),
    "random bits of another kind": Case(old_bits, False),
    "keys": Case(lambda a, v: jax.random.key_data(jax.random.split(key_of(v))), False),
}


def nested(fun, transform, a, v):
    """Every matrix with every vector, each mapped by a transformation of its own."""
    return transform(transform(fun, (0, None)), (None, 0))(a, v)


def total(outs):
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(outs) if jnp.issubdtype(leaf.dtype, jnp.floating))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_vmap(name):
    """Both arguments mapped, with the runs in front and behind; each by itself, nested; and the gradient of that."""
    fun, smooth = FUNCTIONS[name]

    def mapped(transform, a, v):
        slope = jax.grad(lambda a, v: total(nested(fun, transform, a, v)), (0, 1)) if smooth else lambda a, v: ()
        return transform(fun)(a, v), nested(fun, transform, a[:2], v[:3]), slope(a[:2], v[:3])

    @jax.jit
    def compute(a, v):
        last = vmap_last(fun, (-1, 0))(jnp.moveaxis(a, 0, -1), v)
        return last, mapped(vmap_last, a, v), mapped(jax.vmap, a, v)

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        last, twice, expected = compute(jnp.asarray(MATRICES), jnp.asarray(VECTORS))
    for ours, theirs in ((last, expected[0]), (twice, expected)):
        chex.assert_trees_all_close(ours, theirs, rtol=1e-11, atol=1e-11)
        chex.assert_trees_all_equal_shapes_and_dtypes(ours, theirs)


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: isinstance(x, (ClosedJaxpr, Jaxpr))):
            if isinstance(inner, (ClosedJaxpr, Jaxpr)):
                yield from equations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


def test_every_rule_is_used_and_holds_on_this_jax():
    """Over the table, every primitive that has a rule goes by it: on releases that were tried, or it is said."""
    by_rule, by_vmap = set(), set()
    for fun, _ in FUNCTIONS.values():
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            jaxpr = jax.make_jaxpr(fun)(MATRICES[0], VECTORS[0]).jaxpr
        for eqn in equations(jaxpr):
            name = eqn.primitive.name
            if name in RULES:
                (by_vmap if rule_of(eqn) is None else by_rule).add(name)
    # Single equations may ask for more than others: convert_element_type for a sharding, inside of a Hessian.
    by_vmap -= by_rule
    if by_vmap and Version(jax.__version__) > Version(NEWEST_TRIED):
        warnings.warn(f"jax {jax.__version__} maps {sorted(by_vmap)} by jax.vmap: right, and slower", stacklevel=1)
    else:
        assert not by_vmap
    assert set(RULES) == by_rule | by_vmap, "every rule needs a function in the table"


def test_the_gradient_of_a_custom_derivative_is_kept():
    """logsumexp at -inf: its own rule gives 0, the derivative of its formula NaN."""
    point = jnp.full((7, 4), -jnp.inf).at[:, 0].set(1.0)
    total = lambda transform: jax.grad(lambda x: transform(jax.nn.logsumexp)(x).sum())(point)  # noqa: E731
    np.testing.assert_array_equal(total(vmap_last), total(jax.vmap))
    assert np.isfinite(total(vmap_last)).all()


def test_the_gradient_of_a_differential_equation():
    """odeint keeps the times, a constant, for its way back."""
    solve = lambda rate: odeint(lambda y, t: -rate * y, jnp.ones(2), jnp.array([0.0, 1.0])).sum()  # noqa: E731
    rates = jnp.array([0.5, 1.0])
    slope = jax.jit(jax.grad(lambda rates: vmap_last(solve)(rates).sum()))(rates)
    np.testing.assert_allclose(slope, -2 * np.exp(-rates), rtol=1e-6)


def test_keys_are_mapped():
    keys = jax.random.split(jax.random.key(0), 6)
    both(lambda key: damjax.weights.dirichlet(key, 3), keys)
    both(lambda key: damjax.streams.linear_model(key, num_agents=2, num_steps=4), keys)


@pytest.mark.parametrize("name", ["dam_togd", *in_the_long_run(*(name for name in ALGORITHMS if name != "dam_togd"))])
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


@pytest.mark.parametrize("name", ["gated_softmax_attention", *in_the_long_run("delta_net", "cross_entropy")])
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
    with pytest.raises(ValueError, match="in_axes must be 0, -1 or None for each argument, but it is 1"):
        vmap_last(jnp.sin, in_axes=1)
    with pytest.raises(ValueError, match=r"in_axes must be .* for each of 1 arguments, and not None for all"):
        vmap_last(jnp.sin, in_axes=(None,))(VECTORS)
    for args, in_axes in (((VECTORS, VECTORS[:3]), 0), ((1.0,), 0)):
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


def test_inside_shard_map_with_its_checks():
    """What varies over devices is checked there, and constants, carries and collectives do or do not."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("runs",))
    runs = jax.sharding.PartitionSpec("runs")

    def fun(a, v):
        def body(carry, row):
            return (carry[0] + row.sum(), carry[1] + 1), jnp.where(row > 0, row, 0.5) * carry[1]

        carried, rows = lax.scan(body, (v.sum(), 0.0), a)
        moved = lax.dynamic_update_slice(jnp.zeros((5, 4)), a, (1, 0))[jnp.array([0, 2])]
        return carried[0], rows, moved, lax.psum(v, "runs"), lax.axis_index("runs").astype(a.dtype) + a, jnp.arange(3.0)

    arguments = [jax.device_put(x, jax.sharding.NamedSharding(mesh, runs)) for x in (MATRICES, VECTORS)]
    mapped, expected = (
        jax.jit(jax.shard_map(transform(fun), mesh=mesh, in_specs=runs, out_specs=runs))(*arguments)
        for transform in (vmap_last, jax.vmap)
    )
    chex.assert_trees_all_close(mapped, expected, rtol=1e-12)

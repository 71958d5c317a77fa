"""Best memories, regret and bounds on every set: those without a closed form, and those of a user's own."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import domains, hindsight
from damjax.hindsight import convex, quadratic
from tests.cases import in_the_long_run
from tests.test_domains import Cube

SHAPE = (2, 3)


class ByIteration:
    """A user's Frobenius ball, no subclass, whose projection is a loop of unknown length: the norm by Heron's steps."""

    def __init__(self, radius):
        self.radius, self.diameter = radius, 2 * radius

    def project(self, memory):
        squared = jnp.maximum(jnp.sum(memory**2), self.radius**2)
        digits = 8 * float(jnp.finfo(memory.dtype).eps)
        wrong = lambda norm: jnp.abs(norm**2 - squared) > digits * squared  # noqa: E731
        norm = jax.lax.while_loop(wrong, lambda norm: (norm + squared / norm) / 2, squared)
        return memory * (self.radius / ((norm + squared / norm) / 2))

    def support(self, direction):
        return self.radius * direction / jnp.maximum(jnp.linalg.norm(direction), 1e-30)


SETS = {
    "l1 ball": lambda size=1.0: domains.l1_ball(0.8 * size),
    "nuclear ball": lambda size=1.0: domains.nuclear_ball(0.7 * size),
    "simplex": lambda size=1.0: domains.simplex(1.0 * size),
    "rows": lambda size=1.0: domains.simplex(0.6 * size, -1),
    "product": lambda size=1.0: domains.product([domains.frobenius_ball(0.5 * size), domains.l1_ball(0.4 * size)]),
    "large l1 ball": lambda size=1.0: domains.l1_ball(40.0 * size),
    "large nuclear ball": lambda size=1.0: domains.nuclear_ball(40.0 * size),
    "own": lambda size=1.0: Cube(0.2 * size),
}
over_sets = pytest.mark.parametrize("name", SETS)
# Every set with a hessian; how the other kinds are solved does not depend on the set, but on what it declares.
KINDS = ("hessian", "ridge", "linear")
PROBLEMS = [
    (name, kind) for name in SETS for kind in KINDS if kind == "hessian" or name in ("l1 ball", "simplex", "own")
]
over_problems = pytest.mark.parametrize(("name", "kind"), PROBLEMS)


def moments_of(kind, seed=0, dtype: Any = np.float64, batch=(2,)):
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(*batch, 5, 3))
    return hindsight.Moments(
        jnp.asarray(np.einsum("...ki,...kj->...ij", samples, samples), dtype) if kind == "hessian" else None,
        jnp.asarray(rng.uniform(0.2, 2, (*batch, *SHAPE)), dtype) if kind == "ridge" else None,
        jnp.asarray(2 * rng.normal(size=(*batch, *SHAPE)), dtype),
        jnp.full(batch, 9.0, dtype),
    )


def projected_gradient(moments, domain, steps=20_000):
    """The slow way, in small steps: what the best memory is, to about its rounding."""
    sizes = [jnp.linalg.eigvalsh(moments.hessian)[-1] if moments.hessian is not None else 0.0]
    sizes.append(0.0 if moments.ridge is None else jnp.max(moments.ridge))
    rate = 1 / jnp.maximum(jnp.asarray(sizes).max(), 0.05)
    step = lambda _, memory: domain.project(memory - rate * moments.gradient(memory))  # noqa: E731
    return jax.jit(lambda: jax.lax.fori_loop(0, steps, step, jnp.zeros(SHAPE)))()


@over_problems
def test_best_memories_against_a_long_run_of_projected_gradient(name, kind):
    """Feasible, as good as what small steps find, and certified; the certificate is true of it."""
    moments, domain = moments_of(kind), SETS[name]()
    best = hindsight.best(moments, domain)
    assert bool(jax.vmap(domain.contains)(best.params).all())
    np.testing.assert_allclose(best.loss, moments.value(best.params), rtol=1e-12)
    assert (best.gap < 1e-9 * (1 + jnp.abs(best.loss))).all()
    for n in range(2):
        alone = jax.tree.map(lambda leaf, n=n: leaf[n], moments)
        expected = projected_gradient(alone, domain, 3000)
        assert best.loss[n] - best.gap[n] <= alone.value(expected) + 1e-10
        assert best.loss[n] <= alone.value(expected) + 1e-9


@over_sets
def test_the_gap_bounds_what_any_memory_misses(name):
    """Of a memory that is not the best: at least F(U) - min F."""
    moments, domain = jax.tree.map(lambda leaf: leaf[0], moments_of("hessian")), SETS[name]()
    least = hindsight.best(moments, domain).loss
    for draw in np.random.default_rng(1).normal(size=(20, *SHAPE)):
        memory = domain.project(jnp.asarray(draw))
        gap = convex.frank_wolfe_gap(moments.gradient(memory), memory, domain)
        assert gap >= moments.value(memory) - least - 1e-9


@over_problems
def test_single_precision(name, kind):
    best = hindsight.best(moments_of(kind, dtype=np.float32), SETS[name]())
    exact = hindsight.best(moments_of(kind), SETS[name]())
    assert best.params.dtype == np.float32
    np.testing.assert_allclose(best.loss, exact.loss, rtol=1e-5, atol=1e-4)
    assert (best.gap < 1e-4 * (1 + jnp.abs(best.loss))).all()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("l1 ball", "hessian"),
        *in_the_long_run(*((name, "hessian") for name in ("nuclear ball", "simplex", "product", "own"))),
        *in_the_long_run(("l1 ball", "ridge"), ("product", "ridge")),
    ],
)
def test_derivatives(name, kind):
    """Of minimum and minimiser, in the problem and in the size of the set, against finite differences."""
    moments = jax.tree.map(lambda leaf: leaf[0], moments_of(kind))
    rng = np.random.default_rng(3)
    change = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), moments)
    if change.hessian is not None:
        change = change._replace(hessian=change.hessian + change.hessian.T)
    probe = jnp.asarray(rng.normal(size=SHAPE))

    def results(along, size):
        moved = jax.tree.map(lambda leaf, d: leaf + along * d, moments, change)
        best = hindsight.best(moved, SETS[name](1 + size))
        return jnp.stack([best.loss, jnp.sum(probe * best.params)])

    step = 1e-5
    for argument in (0, 1):
        ahead, behind = (results(*(sign * step * (i == argument) for i in range(2))) for sign in (1, -1))
        expected = (ahead - behind) / (2 * step)
        for derivative in (jax.jacfwd, jax.jacrev):
            slopes = derivative(results, argument)(0.0, 0.0)
            np.testing.assert_allclose(slopes, expected, rtol=1e-5, atol=2e-6)
    # Of the minimum once more, in the problem.
    slope = jax.grad(lambda t: results(t, 0.0)[0])
    expected = (slope(step) - slope(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(slope)(0.0), expected, rtol=1e-4, atol=1e-4)


def test_a_projection_that_is_a_loop_of_unknown_length():
    """jax differentiates it forwards only; its best memory has derivatives all the same, and they are the ball's."""
    moments = moments_of("hessian")
    own: Any = ByIteration(0.3)
    ball: Any = domains.frobenius_ball(0.3)
    found, expected = hindsight.best(moments, own), hindsight.best(moments, ball)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-9)
    np.testing.assert_allclose(found.params, expected.params, atol=1e-5)
    slopes = [
        jax.grad(lambda linear, d=d: jnp.sum(hindsight.best(moments._replace(linear=linear), d).loss))(moments.linear)
        for d in (own, ball)
    ]
    np.testing.assert_allclose(*slopes, atol=1e-5)
    slopes = [
        jax.grad(lambda linear, d=d: jnp.sum(hindsight.best(moments._replace(linear=linear), d).params ** 2))(
            moments.linear
        )
        for d in (own, ball)
    ]
    np.testing.assert_allclose(*slopes, atol=1e-4)


@pytest.mark.parametrize("name", ["own", *in_the_long_run("l1 ball", "nuclear ball", "simplex", "product")])
def test_a_loss_that_is_not_quadratic(name):
    """log-cosh regression, certified; the gradient of its minimum by the envelope theorem."""
    rng = np.random.default_rng(0)
    cues, answers = jnp.asarray(rng.normal(size=(20, 3))), jnp.asarray(rng.normal(size=(20, 2)))

    @jax.jit
    def solve(shift):
        loss = lambda params: jnp.sum(jnp.log(jnp.cosh(cues @ params.T - answers - shift)))  # noqa: E731
        smoothness = jnp.linalg.eigvalsh(cues.T @ cues)[-1]
        return hindsight.minimize(loss, jnp.zeros(SHAPE), SETS[name](), smoothness=smoothness, tolerance=1e-11)

    assert solve(0.3).gap <= 1e-11
    expected = (solve(0.3 + 1e-4).loss - solve(0.3 - 1e-4).loss) / 2e-4
    np.testing.assert_allclose(jax.grad(lambda shift: solve(shift).loss)(0.3), expected, rtol=1e-6)


# Runs.


def problem_of(objective, dtype: Any = np.float64, num_steps=60):
    rng = np.random.default_rng(4)
    keys = rng.normal(size=(num_steps, 2, 3)) / 2
    values = rng.normal(size=(num_steps, 2, 2)) + np.einsum("ij,tnj->tni", rng.normal(size=SHAPE), keys)
    if objective == "cross_entropy":
        outputs = rng.normal(size=(4, 2))
        made, values = damjax.objectives.cross_entropy(outputs), outputs[rng.integers(4, size=(num_steps, 2))]
    else:
        made = getattr(damjax.objectives, objective)()
    stream = damjax.Associations(jnp.asarray(keys, dtype), jnp.asarray(values, dtype))
    return made, jnp.asarray([[0.7, 0.3], [0.4, 0.6]], dtype), stream


@pytest.mark.parametrize(
    ("name", "objective", "dtype"),
    [
        ("l1 ball", "delta_net", np.float64),
        *in_the_long_run(*((name, "delta_net", np.float64) for name in (*SETS, "duck") if name != "l1 ball")),
        *in_the_long_run(*((name, "delta_net", np.float32) for name in ("l1 ball", "nuclear ball", "duck"))),
        *in_the_long_run(*((name, "linear_attention", np.float64) for name in ("l1 ball", "simplex", "own"))),
        *in_the_long_run(*((name, "cross_entropy", np.float64) for name in ("nuclear ball", "product", "duck"))),
    ],
)
def test_regret_is_below_its_bound_and_nothing_warns(name, objective, dtype):
    """A run from a memory of the set, measured and bounded in it, and diagnosed."""
    made, weights, stream = problem_of(objective, dtype)
    domain: Any = ByIteration(0.5) if name == "duck" else SETS[name]()
    constants = damjax.bounds.constants(made, domain, stream)
    scale = float(constants.diameter / constants.lipschitz.max())
    rate = damjax.schedules.inverse_sqrt(scale)
    start = domain.project(jnp.zeros(SHAPE, dtype))
    delays = np.array([[0, 2], [2, 0]])
    for algorithm in (
        damjax.ogd(made, weights, learning_rate=rate, domain=domain),
        damjax.dam_togd(made, weights, delays, learning_rate=rate, domain=domain),
    ):
        _, trace = damjax.simulate(algorithm, jnp.broadcast_to(start, (2, *SHAPE)), stream)
        losses = damjax.regret.personalized_losses(made, weights, trace.params, stream)
        regret = damjax.regret.static_regret(losses, made, weights, domain, stream, [20, 60])
        best = hindsight.best_in_hindsight(made, weights, domain, stream, [20, 60])
        assert bool(jax.vmap(jax.vmap(domains.as_domain(domain).contains))(best.params).all())
        assert regret.dtype == dtype
        for h, horizon in enumerate((20, 60)):
            if algorithm.step.__module__.endswith("togd"):
                bound = damjax.bounds.dam_togd_mended(weights, delays, constants, scale=scale, horizon=horizon)
            else:
                bound = damjax.bounds.ogd(weights, constants, scale=scale, horizon=horizon)
            assert (regret[h] <= bound).all()
    damjax.diagnostics.diagnose(made, weights, domain, stream, trace)


@pytest.mark.parametrize("name", SETS)
def test_the_lipschitz_constants_bound_the_slopes(name):
    made, _, stream = problem_of("delta_net", num_steps=5)
    domain = SETS[name]()
    constants = damjax.bounds.constants(made, domain, stream)
    slope = jax.vmap(jax.vmap(made.gradient, in_axes=(None, 0, 0)), in_axes=(None, 0, 0))
    slope = jax.jit(slope)
    for draw in np.random.default_rng(6).normal(size=(30, *SHAPE)):
        memory = domain.support(jnp.asarray(draw))
        norms = jnp.linalg.norm(slope(memory, stream.keys, stream.values), axis=(-2, -1))
        assert (norms <= constants.lipschitz[None] * (1 + 1e-9)).all()
    np.testing.assert_allclose(constants.diameter, domain.width(jnp.zeros(SHAPE)))
    grown = jax.grad(lambda size: jnp.sum(damjax.bounds.constants(made, SETS[name](size), stream).lipschitz))(1.0)
    assert grown > 0


def test_a_set_without_support_is_refused_by_name(untyped):
    """It can be projected onto, and runs, and has bounds; nothing is measured in another set instead."""
    made, weights, stream = problem_of("delta_net")
    own: Any = SimpleNamespace(project=lambda memory: jnp.clip(memory, -0.1, 0.1), diameter=2.0)
    algorithm = damjax.ogd(made, weights, learning_rate=0.1, domain=own)
    _, trace = damjax.simulate(algorithm, jnp.zeros((2, *SHAPE)), stream)
    assert jnp.abs(trace.params).max() <= 0.1
    assert float(damjax.bounds.constants(made, own, stream).diameter) == 2
    moments = hindsight.moments(made, stream, [3])
    losses = jnp.zeros((60, 2))
    for call in (
        lambda: damjax.regret.static_regret(losses, made, weights, own, stream, [3]),
        lambda: hindsight.best_in_hindsight(made, weights, own, stream, [3]),
        lambda: hindsight.best_memories(moments, weights, own),
        lambda: hindsight.best(moments, own),
        lambda: hindsight.minimize(jnp.sum, jnp.zeros((1, 1)), own, smoothness=1.0, tolerance=1.0),
        lambda: damjax.diagnostics.diagnose(made, weights, own, stream, trace),
    ):
        with pytest.raises(ValueError, match=r"^domain must have a support .* it a function support\(direction\)"):
            call()


def test_a_set_that_breaks_a_law_is_not_measured_in(untyped):
    """A linear minimiser instead of a maximiser would make every certificate negative."""
    wrong: Any = SimpleNamespace(
        project=lambda memory: jnp.clip(memory, -0.1, 0.1), diameter=1.0, support=lambda slope: -0.1 * jnp.sign(slope)
    )
    with pytest.raises(ValueError, match=r"^domain\.support"):
        hindsight.best(moments_of("hessian"), wrong)
    endless: Any = SimpleNamespace(project=lambda memory: memory, diameter=np.inf)
    with pytest.raises(ValueError, match="domain must be bounded"):
        damjax.bounds.constants(damjax.objectives.delta_net(), endless, problem_of("delta_net")[2])


def test_a_second_call_on_another_size_compiles_nothing():
    moments = moments_of("hessian")
    for name in ("l1 ball", "product", "own"):
        hindsight.best(moments, SETS[name](1.0))
        num_compiled = getattr(quadratic._best_jitted, "_cache_size")  # noqa: B009
        before = num_compiled()
        hindsight.best(moments, SETS[name](1.1))
        assert num_compiled() == before


@pytest.mark.parametrize(
    "domain",
    [
        damjax.domains.unconstrained(),
        damjax.domains.box(0.0, np.inf),
        damjax.domains.product([damjax.domains.frobenius_ball(1.0)] * 2 + [damjax.domains.unconstrained()]),
    ],
)
def test_unbounded_sets_are_refused_where_nothing_certifies_the_best_memory(domain):
    stream, _ = damjax.streams.linear_model(jax.random.key(0), num_agents=2, num_steps=5, value_dim=3)
    for objective in (damjax.objectives.linear_attention(), damjax.objectives.cross_entropy(jnp.eye(3))):
        with pytest.raises(ValueError, match=r"^domain must be bounded"):
            damjax.hindsight.best_in_hindsight(objective, jnp.eye(2), domain, stream, [5])

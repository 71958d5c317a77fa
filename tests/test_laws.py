"""Objectives and sets of a user's own: those that break a law are refused by name, the others run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import _laws, domains, objectives, regret

DTYPES = [jnp.float32, jnp.bfloat16]


def own_objective(**changes):
    """Delta-net, written by a user."""
    parts = {
        "features": lambda key: key,
        "loss": lambda prediction, value, time: 0.5 * jnp.sum((prediction - value) ** 2),
        "residual": lambda prediction, value, time: prediction - value,
        "kind": objectives.Quadratic(1.0),
    }
    return objectives.Objective(**(parts | changes))


def logistic(**changes):
    parts = {
        "loss": lambda prediction, value, time: -jnp.sum(value * jax.nn.log_softmax(prediction)),
        # True of distributions only.
        "residual": lambda prediction, value, time: jax.nn.softmax(prediction) - value,
        "kind": objectives.Smooth(0.5, lambda value: jnp.asarray(2.0, value.dtype)),
    }
    return own_objective(**(parts | changes))


def waves():
    """Not convex."""
    return own_objective(
        loss=lambda prediction, value, time: jnp.sum(jnp.cos(prediction)),
        residual=lambda prediction, value, time: -jnp.sin(prediction),
        kind=objectives.Smooth(1.0),
    )


class OwnDomain:
    """The box of half-width 1, written by a user, for memories (2, 2)."""

    def __init__(self, **changes):
        vars(self).update({"diameter": 4.0} | changes)

    def project(self, memory):
        return jnp.clip(memory, -1, 1)


def own_domain(**changes):
    return OwnDomain(**changes)


def halfspace(memory):
    """What iterations find of {sum <= 1}: to four digits."""
    return memory - (1 - 1e-4) * jnp.maximum(jnp.sum(memory) - 1, 0) / memory.size


def check(objective, dtype=jnp.float32):
    _laws.check_objective(objective, 3, dtype)


LAWFUL = {
    "quadratic": own_objective(),
    "logistic": logistic(),
    "hinge": own_objective(
        loss=lambda z, v, t: jnp.sum(jnp.maximum(0, 1 - v * z)),
        residual=lambda z, v, t: jnp.where(v * z < 1, -v, 0),
        kind=objectives.Lipschitz(lambda value: jnp.linalg.norm(value)),
    ),
    "logarithm": own_objective(
        loss=lambda z, v, t: -jnp.sum(jnp.log(z)), residual=lambda z, v, t: -1 / z, kind=objectives.General()
    ),
    "by time": own_objective(
        loss=lambda z, v, t: -jnp.sum(z * v) / t, residual=lambda z, v, t: -v / t, kind=objectives.Linear()
    ),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("objective", LAWFUL.values(), ids=LAWFUL)
def test_what_keeps_the_laws_passes(objective, dtype):
    check(objective, dtype)


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("objective.residual", own_objective(residual=lambda z, v, t: 1.2 * (z - v))),
        ("objective.residual", own_objective(residual=lambda z, v, t: v - z)),
        ("objective.residual", own_objective(residual=lambda z, v, t: (z - v) / t)),
        ("objective.residual", own_objective(residual=lambda z, v, t: jnp.sum(z - v))),
        ("objective.residual", own_objective(residual=lambda z, v, t: (z - v).astype(jnp.float16))),
        ("objective.residual", own_objective(residual=lambda z, v, t: jnp.full_like(z, jnp.nan))),
        ("objective.residual", objectives.delta_net()._replace(residual=lambda z, v, t: z + v)),
        ("objective.loss", own_objective(loss=lambda z, v, t: 0.5 * (z - v) ** 2)),
        ("objective.loss", own_objective(loss=lambda z, v, t: None)),
        ("objective.kind", own_objective(kind=objectives.Linear())),
        ("objective.kind", own_objective(kind=objectives.Quadratic(2.0))),
        ("objective.kind", logistic(kind=objectives.Quadratic(1.0))),
        ("objective.kind", logistic(kind=objectives.Smooth(0.1))),
        ("objective.kind", waves()),
        ("objective.kind", logistic(kind=objectives.Lipschitz(lambda value: jnp.asarray(0.01, value.dtype)))),
        ("objective.kind", logistic(kind=objectives.Smooth(0.5, lambda value: jnp.asarray(0.01, value.dtype)))),
    ],
)
def test_what_breaks_a_law_is_refused_by_name(name, objective):
    with pytest.raises(ValueError, match=f"^{name}"):
        check(objective)


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("domain.project", own_domain(project=lambda memory: memory / 2)),
        ("domain.project", own_domain(project=lambda memory: jnp.where(jnp.abs(memory) < 100, 2 * memory, memory))),
        ("domain.project", own_domain(project=lambda memory: 1.5 * memory, diameter=np.inf)),
        ("domain.project", own_domain(project=jnp.sum)),
        ("domain.project", own_domain(project=lambda memory: memory.astype(jnp.float16))),
        ("domain.project", own_domain(project=lambda memory: None)),
        ("domain.project", own_domain(project=lambda memory: memory * jnp.nan)),
        ("domain.project", own_domain(project=lambda memory: 1e4 * jnp.sign(memory), diameter=np.inf)),
        ("domain.diameter", own_domain(diameter=3.9)),
        ("domain.diameter", own_domain(diameter=np.nan)),
        ("domain.diameter", own_domain(diameter=np.ones(2))),
        ("domain.project", domains.product([own_domain(project=lambda row: row / 2)] * 2)),
        ("domain.reach", own_domain(reach=lambda memory: 1.9)),
        ("domain.contains", own_domain(contains=lambda memory, tolerance=0.0: jnp.all(jnp.abs(memory) < 1))),
        ("domain.support", own_domain(support=lambda slope: -jnp.sign(slope))),
        ("domain.support", own_domain(support=lambda slope: 1.1 * jnp.sign(slope))),
        ("domain.support", own_domain(support=lambda slope: 0 * slope)),
        ("domain.support", own_domain(support=lambda slope: jnp.inf * slope)),
        ("domain.support", own_domain(support=jnp.sum)),
    ],
)
def test_sets_that_break_a_law_are_refused_by_name(name, domain):
    algorithm = damjax.ogd(objectives.delta_net(), np.eye(1), learning_rate=0.1, domain=domain)
    with pytest.raises(ValueError, match=f"^{name}"):
        algorithm.init(jnp.zeros((1, 2, 2), jnp.float32))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_sets_that_keep_the_laws_pass(dtype):
    memory = jax.ShapeDtypeStruct((2, 2), dtype)
    for domain in (
        own_domain(),
        own_domain(diameter=np.inf),
        own_domain(project=halfspace, diameter=np.inf),
        own_domain(support=jnp.sign, reach=lambda memory: 2.0, contains=lambda memory: jnp.max(jnp.abs(memory)) <= 1),
        own_domain(project=lambda memory: memory, diameter=np.inf, support=lambda slope: jnp.inf * slope),
    ):
        _laws.check_domain(domain, memory)
    jax.eval_shape(lambda width: _laws.check_domain(own_domain(diameter=2 * width), memory), 1.0)


def test_laws_of_sets_of_trees():
    """A dict of two arrays is one memory, and comes as arrays or as their shapes."""
    memory = {"a": jnp.zeros((2, 1), jnp.float32), "b": jnp.zeros(2)}
    clip = lambda tree: jax.tree.map(lambda leaf: jnp.clip(leaf, -1, 1), tree)  # noqa: E731
    for example in (memory, jax.eval_shape(lambda: memory)):
        _laws.check_domain(own_domain(project=clip), example)
        with pytest.raises(ValueError, match=r"^domain\.project must keep shape and dtype"):
            _laws.check_domain(own_domain(project=lambda tree: tree["a"]), example)
        with pytest.raises(ValueError, match=r"^domain\.diameter"):
            _laws.check_domain(own_domain(project=clip, diameter=3.0), example)


def losses(objective, params=None):
    now = damjax.Associations(jnp.ones((1, 2)), jnp.ones((1, 2)))
    return regret.step_losses(objective, np.eye(1), jnp.zeros((1, 2, 2)) if params is None else params, now, 1)


def test_a_kind_is_one_of_the_library(untyped):
    with pytest.raises(ValueError, match=r"^objective\.kind must be of type Kind, but it is 1\.0"):
        losses(own_objective(kind=1.0))


@pytest.mark.parametrize(
    "features", [lambda key: jnp.sum(key), lambda key: key.astype(jnp.float32), lambda key: None, lambda key: key[None]]
)
def test_features_are_a_vector_of_the_dtype_of_the_cue(features):
    with pytest.raises(ValueError, match=r"^objective\.features"):
        losses(objectives.softmax_attention(features))


def test_laws_are_tried_under_transformations_too():
    """A run is traced inside vmap and scan, where what is not traced is still known."""
    wrong = own_objective(residual=lambda prediction, value, time: 2 * (prediction - value))
    for transform in (lambda run: jax.vmap(run, axis_size=4, in_axes=None), jax.jit, jax.checkpoint, jax.jacobian):
        with pytest.raises(ValueError, match=r"^objective\.residual"):
            jax.eval_shape(transform(lambda params: losses(wrong, params)), jnp.zeros((1, 2, 2)))


def test_what_is_traced_is_left_out():
    """The derivative of a traced loss is known to nobody."""

    def scaled(scale):
        return losses(own_objective(residual=lambda z, v, t: scale * (z - v), kind=objectives.Quadratic(scale)))

    assert jax.eval_shape(scaled, 1.0).shape == (1,)
    assert jax.eval_shape(lambda scale: losses(own_objective(kind=objectives.Quadratic(scale))), 1.0).shape == (1,)
    assert jax.eval_shape(jax.jacobian(scaled), 1.0).shape == (1,)


def test_the_library_pays_nothing_for_its_own(monkeypatch):
    """Not one number is computed for them: sweeps trace them often."""
    for name in ("check_shapes", "check_slopes", "_close", "_tolerance"):
        monkeypatch.delattr(_laws, name)
    for make in (objectives.delta_net, objectives.linear_attention, objectives.gated_linear_attention):
        check(make())
    check(objectives.cross_entropy(np.eye(3)))
    check(objectives.gated_softmax_attention(damjax.features.taylor(key_dim=2, degree=1)))
    monkeypatch.delattr(_laws, "try_domain")
    for domain in (
        domains.frobenius_ball(1.0),
        domains.box(-1.0, 1.0),
        domains.unconstrained(),
        domains.product([domains.nuclear_ball(1.0), domains.simplex()]),
    ):
        _laws.check_domain(domain, jnp.zeros((2, 2), jnp.float32))

"""The public checks pass what keeps the laws, and refuse by name what breaks one."""

import itertools
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import objectives, testing


def quadratic(**changes):
    parts = {
        "features": lambda key: key,
        "loss": lambda prediction, value, time: 0.5 * jnp.sum((prediction - value) ** 2),
        "residual": lambda prediction, value, time: prediction - value,
        "kind": objectives.Quadratic(1.0),
    }
    return objectives.Objective(**(parts | changes))


def huber(width=1.0, **changes):
    def loss(prediction, value, time):
        error = jnp.abs(prediction - value)
        return jnp.sum(jnp.where(error < width, 0.5 * error**2, width * (error - 0.5 * width)))

    parts = {
        "loss": loss,
        "residual": lambda prediction, value, time: jnp.clip(prediction - value, -width, width),
        "kind": objectives.Smooth(1.0, lambda value: jnp.asarray(width * value.size**0.5, value.dtype)),
    }
    return quadratic(**(parts | changes))


def perceptron(**changes) -> Any:
    """An objective of a user's own, of a memory with two layers."""

    def value(params, key, value, gate, time):
        return jnp.sum((params["out"] @ jnp.tanh(params["hidden"] @ key) - value) ** 2) / time

    return types.SimpleNamespace(**({"value": value} | changes))


LAYERS = {"hidden": np.zeros((4, 3)), "out": np.zeros((2, 4))}


@pytest.mark.parametrize(
    "made",
    [
        quadratic(),
        huber(),
        huber(kind=objectives.Smooth(1.0)),
        quadratic(kind=objectives.General()),
        quadratic(ridge=lambda gate, time: 1 / time),
        # Defined for positive predictions only.
        quadratic(
            loss=lambda z, v, t: -jnp.sum(jnp.log(z)), residual=lambda z, v, t: -1 / z, kind=objectives.General()
        ),
    ],
)
def test_own_objectives_that_keep_the_laws(made):
    testing.check_objective(made)


def test_own_memories_that_keep_the_laws():
    testing.check_objective(perceptron(), params=LAYERS)
    made = objectives.of_memory(
        lambda params, key: params["out"] @ (params["hidden"] @ key),
        lambda prediction, value, time, gate: gate * jnp.sum((prediction - value) ** 2),
        gated=True,
    )
    testing.check_objective(made, params=LAYERS)


BROKEN_OBJECTIVES = {
    "value is no number": ("objective.value must be one number", quadratic(loss=lambda z, v, t: (z - v) ** 2)),
    "features lose the dtype": ("objective.features", quadratic(features=lambda key: key.astype(jnp.float16))),
    "another residual": ("objective.gradient", quadratic(residual=lambda z, v, t: z - v**2)),
    "linear in the prediction only": ("objective.kind", quadratic(kind=objectives.Linear())),
    "another curvature": ("objective.kind", quadratic(kind=objectives.Quadratic(0.5))),
    "too smooth": ("objective.kind", huber(kind=objectives.Smooth(0.5))),
    "too flat": ("objective.kind", huber(kind=objectives.Lipschitz(lambda value: jnp.asarray(0.1, value.dtype)))),
    "a negative ridge": ("objective.value must be convex", quadratic(ridge=lambda gate, time: -2.0)),
    "not convex": (
        "objective.value must be convex",
        quadratic(
            loss=lambda z, v, t: jnp.sum(jnp.cos(z)),
            residual=lambda z, v, t: -jnp.sin(z),
            kind=objectives.Lipschitz(lambda value: jnp.asarray(2.0, value.dtype)),
        ),
    ),
    "nowhere finite": ("objective.value must be finite", quadratic(loss=lambda z, v, t: jnp.sum(z) * jnp.nan)),
}


@pytest.mark.parametrize(("law", "made"), BROKEN_OBJECTIVES.values(), ids=BROKEN_OBJECTIVES)
def test_objectives_that_break_a_law(law, made, untyped):
    with pytest.raises(ValueError, match=f"^{law}"):
        testing.check_objective(made)


@pytest.mark.parametrize(
    ("law", "changes"),
    [
        ("objective.value must be one number", {"value": lambda p, k, v, g, t: p["out"] @ p["hidden"] @ k}),
        ("objective.value must be one number", {"value": lambda p, k, v, g, t: jnp.sum(v).astype(jnp.float16)}),
        ("objective.gradient must be", {"gradient": lambda p, k, v, g, t: p}),
        ("objective.gradient must be", {"gradient": lambda p, k, v, g, t: p["out"]}),
        ("objective.gradient must be .*0 in one", {"gradient": lambda p, k, v, g, t: jax.tree.map(jnp.zeros_like, p)}),
        ("objective.value must have a method", {"value": 3.0}),
        ("objective.value must be a function of", {"value": lambda params: 0.0}),
    ],
)
def test_own_memories_that_break_a_law(law, changes, untyped):
    with pytest.raises(ValueError, match=law.replace("objective.value must have", "objective must have")):
        testing.check_objective(perceptron(**changes), params=LAYERS)


def test_a_memory_of_any_shape_needs_an_example():
    with pytest.raises(ValueError, match=r"^params must hold an array"):
        testing.check_objective(perceptron())


def test_what_a_compiled_objective_forgets():
    """A counter outside of the arguments stands still under jit."""
    counter = itertools.count()
    made = perceptron(
        value=lambda p, k, v, g, t: jnp.sum(p["out"]) * next(counter), gradient=lambda p, *_: jax.tree.map(jnp.copy, p)
    )
    with pytest.raises(ValueError, match=r"^objective\."):
        testing.check_objective(made, params=LAYERS)


NUM_AGENTS, STREAM = (
    3,
    damjax.streams.from_arrays(
        np.random.default_rng(1).normal(size=(8, 3, 3)), np.random.default_rng(2).normal(size=(8, 3, 2))
    ),
)
PARAMS = 0.3 * np.random.default_rng(3).normal(size=(NUM_AGENTS, 2, 3))


def sound():
    """DAM-TOGD on a path of three agents, by way of whose box everything is remembered."""
    weights = np.full((NUM_AGENTS, NUM_AGENTS), 1 / NUM_AGENTS)
    delays = 2 * np.abs(np.subtract.outer(np.arange(NUM_AGENTS), np.arange(NUM_AGENTS)))
    return damjax.dam_togd(
        objectives.delta_net(),
        weights,
        delays,
        learning_rate=damjax.schedules.inverse_sqrt(0.3),
        domain=damjax.domains.frobenius_ball(1.0),
    )


def altered(init=lambda state: state, step=lambda before, after, info: (after, info)):
    """The sound one, with its results changed."""
    algorithm = sound()

    def changed(state, now):
        return step(state, *algorithm.step(state, now))

    return damjax.Algorithm(lambda params: init(algorithm.init(params)), changed)


def forgetful():
    """It keeps the count of its steps outside of its state."""
    algorithm, counter = sound(), itertools.count()

    def step(state, now):
        after, info = algorithm.step(state, now)
        return after._replace(params=after.params * 0.9 ** next(counter)), info

    return algorithm._replace(step=step)


def scaled(after, factor):
    return after._replace(params=after.params * factor)


@jax.custom_jvp
def flat(x):
    return x


@flat.defjvp
def _(points, tangents):
    return points[0], jnp.nan * tangents[0]


@jax.custom_jvp
def doubled(x):
    return x


@doubled.defjvp
def _(points, tangents):
    return points[0], 2 * tangents[0]


class Noted(NamedTuple):
    step: Any
    params: Any
    state: Any
    note: Any


def noted(algorithm):
    """With a number in its state that is of a weak type before the first step, and of a strong one after it."""

    def init(params):
        state = algorithm.init(params)
        return Noted(state.step, state.params, state, jnp.asarray(0.0))

    def step(before, now):
        state, info = algorithm.step(before.state, now)
        return Noted(state.step, state.params, state, before.note + jnp.ones((), before.note.dtype)), info

    return damjax.Algorithm(init, step)


BROKEN_ALGORITHMS = {
    "another start": ("algorithm.init must give a state whose params", altered(lambda s: scaled(s, 0.5))),
    "starts at 1": (
        "algorithm.init must give a state with step 0",
        altered(lambda state: state._replace(step=state.step + 1)),
    ),
    "no step": ("algorithm.init must give a state with params and step", altered(lambda state: (state.params,))),
    "does not count": (
        "algorithm.step must count",
        altered(step=lambda before, after, info: (after._replace(step=before.step), info)),
    ),
    "counts from 0": (
        "algorithm.step must say in info.time",
        altered(step=lambda before, after, info: (after, info._replace(time=info.time - 1))),
    ),
    "one flag for all": (
        "algorithm.step must say in info.finite of every agent",
        altered(step=lambda before, after, info: (after, info._replace(finite=jnp.all(info.finite)))),
    ),
    "promises that all is well": (
        "algorithm.step must say in info.finite which",
        altered(step=lambda before, after, info: (after, info._replace(finite=jnp.ones_like(info.finite)))),
    ),
    "loses the dtype": (
        "algorithm.step must keep structure, shapes and dtypes",
        altered(step=lambda before, after, info: (after._replace(params=after.params.astype(jnp.float16)), info)),
    ),
    "weak types": ("algorithm.step must compile once", noted(sound())),
    "remembers outside": ("algorithm.step must be pure", forgetful()),
    "no derivative": (
        "a run must be differentiable",
        altered(step=lambda before, after, info: (after._replace(params=flat(after.params)), info)),
    ),
    "another derivative": (
        "derivatives of a run must be right",
        altered(step=lambda before, after, info: (after._replace(params=doubled(after.params)), info)),
    ),
}


def test_algorithms_that_keep_the_laws():
    testing.check_algorithm(sound(), PARAMS, STREAM)


@pytest.mark.long
@pytest.mark.parametrize("late", [True, False])
def test_algorithms_with_memories_of_any_shape(late):
    params = jax.tree.map(lambda leaf: 0.3 * np.random.default_rng(4).normal(size=(NUM_AGENTS, *leaf.shape)), LAYERS)
    ball = damjax.domains.frobenius_ball(1.0)
    made, weights, settings = perceptron(), np.eye(NUM_AGENTS), {"learning_rate": 0.1, "domain": ball}
    algorithm = (
        damjax.dam_togd(made, weights, weights.astype(int), **settings)
        if late
        else damjax.ogd(made, weights, **settings)
    )
    testing.check_algorithm(algorithm, params, STREAM)


@pytest.mark.parametrize(("law", "algorithm"), BROKEN_ALGORITHMS.values(), ids=BROKEN_ALGORITHMS)
def test_algorithms_that_break_a_law(law, algorithm):
    with pytest.raises(ValueError, match=f"^{law}"):
        testing.check_algorithm(algorithm, PARAMS, STREAM)


def test_what_is_no_algorithm(untyped):
    with pytest.raises(ValueError, match=r"^algorithm must be of type Algorithm"):
        testing.check_algorithm(sound().step, PARAMS, STREAM)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^associations must have at least 4 steps"):
        testing.check_algorithm(sound(), PARAMS, jax.tree.map(lambda field: field[:2], STREAM))


def test_sets_of_memories_of_any_shape():
    for domain in (
        damjax.domains.frobenius_ball(1.0),
        damjax.domains.product({"hidden": damjax.domains.nuclear_ball(1.0), "out": damjax.domains.box(-1.0, 1.0)}),
    ):
        testing.check_domain(domain, LAYERS)


def own_set(**changes):
    """The box of half-width 1, written by a user, for memories (2, 3)."""
    parts = {
        "project": lambda memory: jnp.clip(memory, -1, 1),
        "diameter": 2 * 6**0.5,
        "support": lambda direction: jnp.where(direction > 0, jnp.ones_like(direction), -1),
        "contains": lambda memory: jnp.all(jnp.abs(memory) <= 1),
    }
    return types.SimpleNamespace(**{name: part for name, part in (parts | changes).items() if part is not None})


def rescaled(memory):
    """Into the l1 ball, but not to the nearest memory of it."""
    return memory / jnp.maximum(jnp.sum(jnp.abs(memory)), 1)


def rescaled_spectrum(memory):
    """Into the nuclear-norm ball, but not to the nearest memory of it; random memories are no evidence."""
    return memory / jnp.maximum(jnp.linalg.norm(memory, "nuc"), 1)


def rooted(memory):
    """The unit ball, with a norm that has no slope at zero."""
    return memory / jnp.maximum(jnp.linalg.norm(memory), 1) ** 1.0


def halfspace(memory):
    """What iterations find of {sum <= 1}: to four digits."""
    return memory - (1 - 1e-4) * jnp.maximum(jnp.sum(memory) - 1, 0) / memory.size


@pytest.mark.parametrize(
    "domain",
    [own_set(), own_set(support=None), own_set(contains=None, diameter=np.inf), own_set(reach=lambda memory: 2.5)],
)
def test_own_sets_that_keep_the_laws(domain):
    testing.check_domain(domain)


def test_an_own_tolerance():
    own = own_set(project=halfspace, diameter=np.inf, support=None, contains=None)
    with pytest.raises(ValueError, match=r"^domain\.project"):
        testing.check_domain(own)
    testing.check_domain(own, tolerance=1e-3)


BROKEN_SETS = {
    "towards the set": ("domain.project must leave", {"project": lambda x: x / 2}),
    "farther out": ("domain.project must", {"project": lambda x: 2 * x, "diameter": np.inf}),
    "not the nearest": ("domain.project must lead", {"project": rescaled, "diameter": 2.0}),
    "not the nearest spectrum": ("domain.project must lead", {"project": rescaled_spectrum, "diameter": 2.0}),
    "a sphere": (
        "domain.project must move no two",
        {"project": lambda x: x / jnp.maximum(jnp.linalg.norm(x), 1e-6), "diameter": 2.0},
    ),
    "another dtype": ("domain.project must keep", {"project": lambda x: jnp.clip(x, -1, 1).astype(jnp.float16)}),
    "NaN at zero": ("domain.project must give finite", {"project": lambda x: x / jnp.linalg.norm(x), "diameter": 2.0}),
    "no slope": ("domain.project must have derivatives", {"project": rooted, "diameter": 2.0}),
    "too wide": ("domain.diameter must be", {"diameter": 4.0}),
    "too long": ("domain.reach must be", {"reach": lambda memory: 2.0}),
    "minimises": ("domain.support must give", {"support": lambda x: -jnp.sign(x)}),
    "outside": ("domain.support must give", {"support": lambda x: 2 * jnp.sign(x)}),
    "not far enough": ("domain.support must give", {"support": lambda x: jnp.zeros_like(x)}),
    "holds nothing": ("domain.contains must be true", {"contains": lambda x: jnp.all(jnp.abs(x) < 0.1)}),
    "holds everything": ("domain.contains must be false", {"contains": lambda x: jnp.asarray(True)}),
    "not in the box": (
        "domain.as_box must give the least",
        {"as_box": lambda x: (jnp.full_like(x, -0.5), jnp.full_like(x, 0.5))},
    ),
    "a box around it": ("domain.as_box must give corners", {"as_box": lambda x: (x * 0 - 2, x * 0 + 2)}),
    "no minimum": ("domain.diagonal_minimizer must be", {"diagonal_minimizer": lambda b, d: jnp.zeros_like(b)}),
    "a minimum outside": ("domain.diagonal_minimizer must be", {"diagonal_minimizer": lambda b, d: 5 * jnp.sign(b)}),
}


@pytest.mark.parametrize(("law", "changes"), BROKEN_SETS.values(), ids=BROKEN_SETS)
def test_sets_that_break_a_law(law, changes):
    parts = {"support": None, "contains": None} if "project" in changes else {}
    with pytest.raises(ValueError, match=f"^{law}"):
        testing.check_domain(own_set(**(parts | changes)))

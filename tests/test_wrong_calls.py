"""Calls that a user may get wrong: each ends in an error that names the argument, where the object is built."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import damjax
from damjax import (
    bounds,
    diagnostics,
    domains,
    features,
    graphs,
    hindsight,
    objectives,
    particles,
    regret,
    routing,
    schedules,
    streams,
    weights,
)

pytestmark = pytest.mark.usefixtures("untyped")
N, T = 3, 40
KEY = jax.random.key(0)
EQUAL = np.full((N, N), 1 / N)
DELAYS = np.zeros((N, N), int)
DELTA, BALL = objectives.delta_net(), domains.frobenius_ball(2.0)
GATED = objectives.gated_linear_attention()
RNG = np.random.default_rng(0)
STREAM = damjax.Associations(jnp.asarray(RNG.normal(size=(T, N, 2))), jnp.asarray(RNG.normal(size=(T, N, 2))))
ZEROS = jnp.zeros((N, 2, 2))
LOSSES = jnp.zeros((T, N))
MODEL = streams.draw_linear_model(KEY, num_agents=2, num_steps=3, key_dim=2, value_dim=2)
OGD = {"learning_rate": 0.1, "domain": BALL}


def ogd(**changes: Any) -> damjax.Algorithm:
    given = {"objective": DELTA, "weights": EQUAL, **OGD} | changes
    return damjax.ogd(given.pop("objective"), given.pop("weights"), **given)


def dam_togd(**changes: Any) -> damjax.Algorithm:
    given = {"objective": DELTA, "weights": EQUAL, "delays": DELAYS, **OGD} | changes
    return damjax.dam_togd(given.pop("objective"), given.pop("weights"), given.pop("delays"), **given)


def c_dogd(**changes: Any) -> damjax.Algorithm:
    given = {"objective": DELTA, "mixing": EQUAL, **OGD} | changes
    return damjax.c_dogd(given.pop("objective"), given.pop("mixing"), **given)


def static_regret(**changes: Any) -> jax.Array:
    given = {"losses": LOSSES, "objective": DELTA, "weights": EQUAL, "domain": BALL, "associations": STREAM}
    return regret.static_regret(**({"horizons": [T], **given} | changes))


def diagnose(**changes: Any) -> Any:
    trace = damjax.simulate(ogd(), ZEROS, STREAM)[1]
    given = {"objective": DELTA, "weights": EQUAL, "domain": BALL, "associations": STREAM, "trace": trace}
    return diagnostics.diagnose(**(given | changes))


def scaled(factor: float) -> np.ndarray:
    return factor * EQUAL


# argument that the message must name -> calls.
WRONG: dict[str, list[Any]] = {
    "weights": [
        lambda: ogd(weights=scaled(2.0)),
        lambda: ogd(weights=-EQUAL),
        lambda: ogd(weights=EQUAL * np.nan),
        lambda: ogd(weights=EQUAL[:2]),
        lambda: dam_togd(weights=scaled(2.0)),
        lambda: dam_togd(weights=EQUAL[0]),
        lambda: static_regret(weights=scaled(2.0)),
        lambda: static_regret(weights=scaled(0.5)),
        lambda: regret.personalized_losses(DELTA, scaled(2.0), jnp.zeros((T, N, 2, 2)), STREAM),
        lambda: damjax.simulate(ogd(), ZEROS, STREAM, observe=regret.observe_losses(DELTA, scaled(2.0))),
        lambda: hindsight.best_in_hindsight(DELTA, scaled(2.0), BALL, STREAM, [T]),
        lambda: diagnose(weights=scaled(2.0)),
        lambda: routing.compile_routes(graphs.path(3), scaled(2.0)),
        lambda: routing.compile_routes(graphs.path(3), EQUAL[:2]),
        lambda: bounds.applied_rates(0.1, EQUAL[0], DELAYS, 5),
    ],
    "delays": [
        lambda: dam_togd(delays=DELAYS - 2),
        lambda: dam_togd(delays=DELAYS.astype(float)),
        lambda: dam_togd(delays=DELAYS[:2]),
        lambda: bounds.applied_rates(0.1, EQUAL, DELAYS[:2], 5),
        lambda: bounds.applied_rates(0.1, EQUAL, DELAYS.astype(float), 5),
    ],
    "max_delay": [
        lambda: dam_togd(max_delay=6.5),
        lambda: dam_togd(max_delay=-2),
        lambda: dam_togd(max_delay="2"),
        lambda: dam_togd(delays=DELAYS + 4, max_delay=2),
        lambda: jax.jit(lambda delays: dam_togd(delays=delays) and 0)(DELAYS),
    ],
    "learning_rate": [
        lambda: ogd(learning_rate=-0.1),
        lambda: ogd(learning_rate=np.nan),
        lambda: ogd(learning_rate=np.ones(T)),
        lambda: ogd(learning_rate=np.ones(N)),
        lambda: ogd(learning_rate=[0.1] * N),
        lambda: bounds.applied_rates(lambda count: np.ones(T), EQUAL, DELAYS, N),
        lambda: ogd(learning_rate=schedules.inverse_sqrt(np.ones(T))),
        lambda: dam_togd(learning_rate="fast"),
        lambda: dam_togd(learning_rate=lambda count: jnp.ones((2, 2))),
        lambda: c_dogd(learning_rate=np.ones(N + 1)),
    ],
    "domain": [
        lambda: ogd(domain=2.0),
        lambda: ogd(domain=domains.frobenius_ball),
        lambda: dam_togd(domain=None),
        lambda: c_dogd(domain="ball"),
        lambda: static_regret(domain=2.0),
        lambda: static_regret(domain=domains.unconstrained),
        lambda: static_regret(domain=types.SimpleNamespace(project=lambda x: x, diameter=1.0)),
        lambda: ogd(domain=types.SimpleNamespace(project=lambda x: x)),
        lambda: static_regret(objective=objectives.linear_attention(), domain=domains.unconstrained()),
        lambda: diagnose(domain=2.0),
        lambda: bounds.constants(DELTA, domains.unconstrained(), STREAM),
        lambda: bounds.constants(DELTA, 2.0, STREAM),  # pyright: ignore[reportArgumentType]
    ],
    "objective": [
        lambda: ogd(objective=objectives.delta_net),
        lambda: dam_togd(objective="delta_net"),
        lambda: c_dogd(objective=None),
        lambda: static_regret(objective=objectives.delta_net),
        lambda: hindsight.best_in_hindsight(None, EQUAL, BALL, STREAM, [T]),  # pyright: ignore[reportArgumentType]
        lambda: static_regret(objective=DELTA._replace(kind=damjax.objectives.General())),
    ],
    "transform": [
        lambda: ogd(transform="adam"),
        lambda: ogd(transform=0),
        lambda: dam_togd(transform=optax.adam),
        lambda: c_dogd(transform=False),
        lambda: ogd(transform=optax.sgd(0.1)).init(ZEROS),
        lambda: damjax.simulate(dam_togd(transform=optax.adam(0.1)), ZEROS, STREAM),
    ],
    "mixing": [
        lambda: c_dogd(mixing=np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]])),
        lambda: c_dogd(mixing=EQUAL[0]),
    ],
    "order": [lambda: c_dogd(order="both")],
    "params": [
        lambda: ogd().init(ZEROS[:2]),
        lambda: ogd().init(ZEROS.astype(int)),
        lambda: damjax.simulate(ogd(), jnp.zeros((N, 2, 3)), STREAM),
    ],
    "gates": [
        lambda: damjax.simulate(ogd(objective=GATED), ZEROS, STREAM),
        lambda: static_regret(objective=GATED),
        lambda: streams.from_arrays(STREAM.keys, STREAM.values, np.full((T, N), 2.0)),
        lambda: streams.from_arrays(STREAM.keys, STREAM.values, np.full((T, N + 1), 0.5)),
        lambda: bounds.constants(GATED, BALL, STREAM),
        lambda: damjax.simulate(ogd(objective=GATED), ZEROS, STREAM._replace(gates=jnp.full((T, N), 2.0))),
        lambda: damjax.simulate(ogd(objective=GATED), ZEROS, STREAM._replace(gates=jnp.zeros((T, N)))),
        lambda: damjax.simulate(ogd(objective=GATED), ZEROS, STREAM._replace(gates=jnp.full((T, N, 7), 0.5))),
    ],
    "keys": [
        lambda: streams.from_arrays(np.full((T, N, 2), "a"), STREAM.values),
        lambda: streams.from_arrays(np.full((T, N, 2), None), STREAM.values),
        lambda: streams.from_arrays(STREAM.keys[0], STREAM.values),
        lambda: streams.from_arrays(STREAM.keys * np.inf, STREAM.values),
    ],
    "values": [lambda: streams.from_arrays(STREAM.keys, STREAM.values[1:])],
    "associations": [
        lambda: damjax.simulate(ogd(), ZEROS, STREAM._replace(values=STREAM.values[:, :, :1])),
        lambda: damjax.simulate(ogd(), ZEROS, STREAM._replace(keys=STREAM.keys[1:])),
        lambda: damjax.simulate(ogd(), ZEROS, STREAM.keys),  # pyright: ignore[reportArgumentType]
        lambda: bounds.constants(DELTA, BALL, jax.tree.map(lambda x: x[0], STREAM)),
        lambda: bounds.constants(DELTA, BALL, STREAM.keys),  # pyright: ignore[reportArgumentType]
        lambda: diagnose(associations=jax.tree.map(lambda x: x[1:], STREAM)),
        lambda: static_regret(associations=[STREAM.keys, STREAM.values]),
        lambda: static_regret(associations=(STREAM.keys, STREAM.values)),
        lambda: static_regret(associations=STREAM.keys),
        lambda: hindsight.moments(DELTA, None, [3]),  # pyright: ignore[reportArgumentType]
        lambda: regret.personalized_losses(DELTA, EQUAL, jnp.zeros((T, N, 2, 2)), [STREAM]),  # pyright: ignore
        lambda: damjax.simulate(ogd(), ZEROS, None),  # pyright: ignore[reportArgumentType]
        lambda: damjax.simulate(ogd(), ZEROS, [STREAM.keys, STREAM.values]),  # pyright: ignore[reportArgumentType]
    ],
    "horizons": [
        lambda: static_regret(horizons=[3, 2]),
        lambda: static_regret(horizons=[0]),
        lambda: static_regret(horizons=[T + 1]),
        lambda: static_regret(horizons=[2.5]),
        lambda: static_regret(horizons=[]),
        lambda: static_regret(horizons=3),
        lambda: hindsight.moments(DELTA, STREAM, np.zeros((0,), int)),
    ],
    "losses": [lambda: static_regret(losses=LOSSES[:, :2]), lambda: static_regret(losses=LOSSES[:, :2].T)],
    "time": [
        lambda: regret.step_losses(DELTA, EQUAL, ZEROS, jax.tree.map(lambda x: x[0], STREAM), 0),
        lambda: regret.step_losses(DELTA, EQUAL, ZEROS, jax.tree.map(lambda x: x[0], STREAM), 1.5),  # pyright: ignore
        lambda: DELTA.value(jnp.eye(2), jnp.ones(2), jnp.ones(2), time=0),
        lambda: DELTA.gradient(jnp.eye(2), jnp.ones(2), jnp.ones(2), time=None),
        lambda: MODEL.associations(MODEL.targets(0.5), None),  # pyright: ignore[reportArgumentType]
    ],
    "key": [
        lambda: DELTA.value(jnp.eye(2), None, jnp.ones(2)),  # pyright: ignore[reportArgumentType]
        lambda: DELTA.gradient(jnp.eye(2), jnp.ones((3, 2)), jnp.ones(2)),
        lambda: DELTA.lipschitz(1.0, "cue", jnp.ones(2)),  # pyright: ignore[reportArgumentType]
    ],
    "value": [lambda: DELTA.value(jnp.eye(2), jnp.ones(2), 1.0)],  # pyright: ignore[reportArgumentType]
    "gate": [
        lambda: GATED.value(jnp.eye(2), jnp.ones(2), jnp.ones(2), gate="half"),
        lambda: GATED.lipschitz(1.0, jnp.ones(2), jnp.ones(2), gate=[None]),
    ],
    "targets": [
        lambda: streams.respond(None, jnp.ones((3, 2))),  # pyright: ignore[reportArgumentType]
        lambda: MODEL.associations(jnp.ones(2), 1),
    ],
    "in_axes": [
        lambda: damjax.vmap_last(jnp.sum, in_axes=2),
        lambda: damjax.vmap_last(jnp.sum, in_axes="runs"),  # pyright: ignore[reportArgumentType]
        lambda: damjax.vmap_last(jnp.add, in_axes=(0,))(jnp.ones(2), jnp.ones(2)),
        lambda: damjax.vmap_last(jnp.sum, in_axes=(None,))(jnp.ones(2)),
    ],
    "run": [
        lambda: damjax.sweep(None, keys=KEY[None], rate=[1.0]),  # pyright: ignore[reportArgumentType]
        lambda: damjax.sweep(lambda key: key, keys=KEY[None], rate=[1.0]),
    ],
    "zipped": [lambda: damjax.sweep(lambda key, rate: rate, keys=KEY[None], zipped=[("rate", "rho")], rate=[1.0])],
    "static": [lambda: damjax.sweep(lambda key, rate: rate, keys=KEY[None], static=["rho"], rate=[1.0])],
    "memory": [
        lambda: particles.descent(None, 0.1),  # pyright: ignore[reportArgumentType]
        lambda: damjax.sweep(lambda key, rate: rate, keys=KEY[None], memory=0, rate=[1.0]),
    ],
    "devices": [lambda: damjax.sweep(lambda key, rate: rate, keys=KEY[None], devices=[], rate=[1.0])],
    "batch_size": [
        lambda: damjax.sweep(lambda key, rate: rate, keys=KEY[None], batch_size=0, rate=[1.0]),
        lambda: damjax.rerun(lambda key, rate: rate, at={"rate": 1.0}, batch_size=0, keys=KEY[None], rate=[1.0]),
    ],
    "at": [lambda: damjax.rerun(lambda key, rate: rate, at={}, batch_size=1, keys=KEY[None], rate=[1.0])],
    "trace": [lambda: diagnose(trace=ZEROS), lambda: diagnose(trace=None)],
    "num_steps": [
        lambda: damjax.simulate(ogd(), ZEROS, lambda time: jax.tree.map(lambda x: x[0], STREAM)),
        lambda: streams.linear_model(KEY, num_steps=0),
    ],
    "algorithm": [
        lambda: damjax.simulate(None, ZEROS, STREAM),  # pyright: ignore[reportArgumentType]
        lambda: damjax.simulate(damjax.ogd, ZEROS, STREAM),  # pyright: ignore[reportArgumentType]
        lambda: damjax.resume("ogd", None, STREAM),  # pyright: ignore[reportArgumentType]
    ],
    "state": [
        lambda: damjax.resume(ogd(), ZEROS, STREAM),
        lambda: damjax.resume(ogd(), None, STREAM),
        lambda: damjax.resume(dam_togd(), ogd().init(ZEROS), STREAM),
        lambda: damjax.resume(ogd(), dam_togd().init(ZEROS), STREAM),
        lambda: damjax.resume(dam_togd(max_delay=2), dam_togd().init(ZEROS), STREAM),
    ],
    "trace_params": [
        lambda: regret.personalized_losses(DELTA, EQUAL, damjax.simulate(ogd(), ZEROS, STREAM)[1], STREAM),
        lambda: regret.personalized_losses(DELTA, EQUAL, ZEROS, STREAM),
        lambda: regret.personalized_losses(DELTA, EQUAL, None, STREAM),  # pyright: ignore[reportArgumentType]
    ],
    "optimizer": [
        lambda: particles.descent(particles.particle_system(2, 2), optax.sgd),  # pyright: ignore[reportArgumentType]
        lambda: particles.descent(particles.particle_system(2, 2), -1.0),
        lambda: particles.descent(particles.particle_system(2, 2), "sgd"),  # pyright: ignore[reportArgumentType]
    ],
    "unroll": [lambda: damjax.simulate(ogd(), ZEROS, STREAM, unroll=0)],
    "checkpoint_every": [lambda: damjax.simulate(ogd(), ZEROS, STREAM, checkpoint_every=0)],
    "radius": [
        lambda: domains.frobenius_ball(-1.0),
        lambda: domains.frobenius_ball(np.ones(3)),
        lambda: domains.frobenius_ball(np.nan),
        lambda: graphs.random_geometric(5, -1.0, 0),
        lambda: graphs.random_geometric(5, np.nan, 0),
    ],
    "probability": [lambda: graphs.erdos_renyi(5, 2.0, 0), lambda: graphs.erdos_renyi(5, -0.1, 0)],
    "seed": [
        lambda: graphs.random_geometric(5, 1.0, None),  # pyright: ignore[reportArgumentType]
        lambda: graphs.erdos_renyi(5, 0.9, None),  # pyright: ignore[reportArgumentType]
        lambda: graphs.erdos_renyi(5, 0.9, 1.5),  # pyright: ignore[reportArgumentType]
    ],
    "lower": [lambda: domains.box(1.0, 0.0), lambda: domains.box(np.zeros(2), np.array([1.0, -1.0]))],
    "scale": [lambda: schedules.inverse_sqrt(0.0), lambda: schedules.power(-1.0, 0.5)],
    "exponent": [lambda: schedules.power(1.0, -0.5)],
    "graph": [
        lambda: routing.compile_routes(nx.DiGraph([(0, 1), (1, 2)]), EQUAL),
        lambda: routing.compile_routes(nx.MultiGraph([(0, 1), (0, 1), (1, 2)]), EQUAL),
        lambda: routing.compile_routes(nx.Graph([("a", "b"), ("b", "c")]), EQUAL),
        lambda: routing.compile_routes(nx.Graph([(0, 0), (0, 1), (1, 2)]), EQUAL),
        lambda: routing.compile_routes([(0, 1)], EQUAL),  # pyright: ignore[reportArgumentType]
        lambda: graphs.metropolis_weights("path"),  # pyright: ignore[reportArgumentType]
    ],
    "method": [lambda: routing.compile_routes(graphs.path(3), EQUAL, method="best")],
    "num_agents": [
        lambda: graphs.ring(0),
        lambda: graphs.path(2.0),  # pyright: ignore[reportArgumentType]
        lambda: graphs.star(-1),
        lambda: weights.dirichlet(KEY, 0),
        lambda: streams.linear_model(KEY, num_agents=1.5),  # pyright: ignore[reportArgumentType]
    ],
    "concentration": [lambda: weights.dirichlet(KEY, 3, concentration=0.0)],
    "self_factor": [lambda: weights.dirichlet(KEY, 3, self_factor=-1.0)],
    "correlation": [lambda: streams.linear_model(KEY, correlation=1.5)],
    "noise_std": [lambda: streams.linear_model(KEY, noise_std=-1.0)],
    "personal_mean": [lambda: streams.linear_model(KEY, personal_mean=(1.0, 0.0))],
    "personal_variance": [lambda: streams.linear_model(KEY, personal_variance=(-1.0, 1.0))],
    "key_dim": [
        lambda: features.taylor(key_dim=0, degree=2),
        lambda: features.taylor(key_dim=3, degree=2)(jnp.ones(2)),
        lambda: features.positive_orthogonal(KEY, key_dim=3, num_features=4)(jnp.ones(2)),
        lambda: damjax.simulate(
            ogd(objective=objectives.softmax_attention(features.taylor(key_dim=3, degree=1))), ZEROS, STREAM
        ),
    ],
    "degree": [lambda: features.taylor(key_dim=2, degree=-1)],
    "outputs": [
        lambda: objectives.cross_entropy(jnp.ones((3, 2))),
        lambda: objectives.cross_entropy(jnp.ones(3)),
        lambda: objectives.cross_entropy(jnp.array([[1.0], [jnp.nan]])),
    ],
    "classes": [
        lambda: particles.one_hot(["a", "b"], 2),
        lambda: particles.one_hot([0.0, 1.0], 2),
        lambda: particles.one_hot([0, 2], 2),
    ],
    "frequencies": [
        lambda: particles.Problem(jnp.eye(2), jnp.eye(2), jnp.array([0.5, 0.6]), jnp.eye(2)),
        lambda: particles.capacity.minimizer(jnp.ones(2), jnp.array([0.5, -0.5])),
    ],
    "relation": [lambda: particles.capacity.minimizer(jnp.array([jnp.nan, 1.0]), jnp.array([0.5, 0.5]))],
    "frequency": [lambda: particles.binary.spike_threshold(0.5, 1.5)],
    "alpha": [lambda: particles.binary.spike_threshold(1.5, 0.5)],
    "rank": [lambda: particles.low_rank(jnp.eye(2), jnp.eye(2), 0)],
    "num_blocks": [lambda: particles.block_diagonal(jnp.eye(3), jnp.eye(3), 2)],
}


@pytest.mark.parametrize(
    ("argument", "call"),
    [pytest.param(name, call, id=f"{name}-{i}") for name, calls in WRONG.items() for i, call in enumerate(calls)],
)
def test_the_message_names_the_argument(argument, call):
    with pytest.raises((ValueError, TypeError), match=rf"\b{argument}\b"):
        call()


def test_labels_keep_their_order_as_advised():
    """The advice for nodes that are not 0..N-1 numbers them in their order, not in that of insertion."""
    graph: nx.Graph = nx.Graph([(5, 2), (2, 7)])
    with pytest.raises(ValueError, match=r"ordering='sorted', label_attribute='name'"):
        routing.compile_routes(graph, EQUAL)
    renamed = nx.convert_node_labels_to_integers(graph, ordering="sorted", label_attribute="name")
    assert [renamed.nodes[node]["name"] for node in range(3)] == [2, 5, 7]


def test_what_looked_wrong_and_is_not():
    """Half precision from the library's own draws, texts that are no file names, and marks of byte order."""
    drawn = weights.dirichlet(KEY, 10, dtype=jnp.bfloat16)
    assert damjax.ogd(DELTA, drawn, **OGD).init(jnp.zeros((10, 2, 2), jnp.bfloat16)).step == 0
    model = streams.draw_linear_model(KEY, num_agents=2, num_steps=3)
    for outside in (0, -1, 4):
        assert jnp.isnan(model.associations(model.targets(0.5), outside).keys).all()
    assert jnp.isfinite(jax.jit(model.associations)(model.targets(0.5), 3).keys).all()
    source, alphabet = particles.bigrams.source_from_text("\u20ac\u20acuro" * 60)  # 240 characters, 480 bytes
    assert alphabet[0] == "\u20ac"
    assert source.transitions.shape == (4, 4)


def test_a_byte_order_mark_is_no_token(tmp_path):
    (tmp_path / "text").write_text("abab", encoding="utf-8-sig")
    assert particles.bigrams.source_from_text(tmp_path / "text")[1] == "ab"
    assert particles.bigrams.source_from_text("\ufeffabab")[1] == "ab"

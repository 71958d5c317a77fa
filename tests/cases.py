"""Random problems that the tests share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import numpy.typing as npt
import pytest

import damjax
from tests import reference

TAYLOR_DEGREE = 2
QUADRATIC = (
    "linear_attention",
    "gated_linear_attention",
    "delta_net",
    "softmax_attention",
    "normalized_softmax_attention",
    "gated_softmax_attention",
)
OBJECTIVES = (*QUADRATIC, "cross_entropy")
# Every kind of residual once; features and the other combinations are tried in the long run.
COMMON = ("delta_net", "gated_linear_attention", "cross_entropy")


def in_the_long_run(*arguments):
    """Arguments of a parametrised test that are tried in the long run only."""
    return [pytest.param(*(x if type(x) is tuple else (x,)), marks=pytest.mark.long) for x in arguments]


def over(names, common=COMMON):
    """Parametrise a test by the names of objectives."""
    rest = (name for name in names if name not in common)
    return pytest.mark.parametrize("name", [*(name for name in names if name in common), *in_the_long_run(*rest)])


# With other features an objective is the same law; one of each law, normalised attention for those with features.
DISTINCT = tuple(name for name in OBJECTIVES if name not in ("softmax_attention", "gated_softmax_attention"))
over_objectives, over_quadratic = over(DISTINCT), over([name for name in DISTINCT if name in QUADRATIC])


def feature_map(name, key_dim):
    return (
        damjax.features.taylor(key_dim=key_dim, degree=TAYLOR_DEGREE) if "softmax" in name else damjax.features.identity
    )


def objective(name, key_dim):
    factory = getattr(damjax.objectives, name)
    if name == "cross_entropy":
        return factory(reference.OUTPUTS)
    return factory(feature_map(name, key_dim)) if "softmax" in name else factory()


def connected_graph(rng, num_agents, probability=0.3):
    """A random tree with a few links more."""
    graph = nx.Graph()
    graph.add_nodes_from(range(num_agents))
    graph.add_edges_from((node, int(rng.integers(node))) for node in range(1, num_agents))
    graph.add_edges_from(pair for pair in nx.non_edges(graph.copy()) if rng.random() < probability)
    return graph


def interests(rng, num_agents, density=0.6, keep_self=0.7):
    """Row-stochastic, sparse; some agents have no interest in themselves."""
    weights = rng.dirichlet(np.ones(num_agents), size=num_agents)
    mask = rng.random((num_agents, num_agents)) < density
    np.fill_diagonal(mask, rng.random(num_agents) < keep_self)
    for n in np.flatnonzero(~mask.any(axis=1)):
        mask[n, rng.integers(num_agents)] = True
    weights = np.where(mask, weights, 0)
    return weights / weights.sum(axis=1, keepdims=True)


class Case(NamedTuple):
    name: str
    objective: damjax.objectives.Objective
    stream: damjax.Associations
    params: np.ndarray
    problem: reference.Problem


def case(rng, name, *, num_agents, num_steps, key_dim=3, value_dim=2, dtype: npt.DTypeLike = np.float64):
    """An objective with a random stream and start, for the library and for the reference."""
    made = objective(name, key_dim)
    if name == "cross_entropy":
        value_dim = reference.OUTPUTS.shape[1]
    keys = rng.uniform(-1, 1, (num_steps, num_agents, key_dim)).astype(dtype)
    values = rng.normal(size=(num_steps, num_agents, value_dim)).astype(dtype)
    if name == "cross_entropy":
        values = reference.OUTPUTS[rng.integers(len(reference.OUTPUTS), size=(num_steps, num_agents))].astype(dtype)
    features = np.asarray(jax.vmap(jax.vmap(made.features))(jnp.asarray(keys)))
    gates = None
    if made.gated:
        shape = [(), (value_dim, 1), (1, features.shape[-1])][rng.integers(3)]
        gates = rng.uniform(0.5, 1, (num_steps, num_agents, *shape)).astype(dtype)
    # Small beside the sets of the tests, whichever the features: a run starts inside of its set.
    start = 0.5 / features.shape[-1] ** 0.5 * rng.normal(size=(num_agents, value_dim, features.shape[-1]))
    stream = damjax.streams.from_arrays(keys, values, gates)
    return Case(name, made, stream, start.astype(dtype), reference.Problem(name, features, values, gates))


def trajectory(algorithm, params, stream):
    """X_1..X_{T+1} and the trace, compiled."""
    state, trace = jax.jit(lambda p, s: damjax.simulate(algorithm, p, s))(jnp.asarray(params), stream)
    return np.concatenate([np.asarray(trace.params), np.asarray(state.params)[None]]), trace

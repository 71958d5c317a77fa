"""Problems and runs that the tests of diagnoses share."""

import jax
import jax.numpy as jnp
import numpy as np

import damjax

DELTA, FREE, BALL = damjax.objectives.delta_net(), damjax.domains.unconstrained(), damjax.domains.frobenius_ball(40.0)
GRAPH = damjax.graphs.paper_network()
ALONE = np.eye(10)
inverse_sqrt = damjax.schedules.inverse_sqrt
# What the thresholds are measured on: targets well inside of the ball, that differ less than those of the figures.
MILD = {"personal_mean": (-1.0, 1.0), "personal_variance": (0.0, 1.0), "noise_std": 0.1}


def simulated(algorithm, stream, start=None):
    """The trace of a run, compiled; from the zero memories unless told otherwise."""
    _, num_agents, value_dim = stream.values.shape
    features = stream.keys.shape[2]
    start = jnp.zeros((num_agents, value_dim, features), stream.values.dtype) if start is None else start
    return jax.jit(lambda stream: damjax.simulate(algorithm, start, stream))(stream)[1]


def problem(
    seed=0, *, num_agents=10, num_steps=400, concentration=1.0, dtype: jax.typing.DTypeLike = np.float64, **model
):
    """A stream and weights. Most tests keep the default shapes, so that one compilation serves them all."""
    stream_key, weights_key = jax.random.split(jax.random.key(seed))
    stream, _ = damjax.streams.linear_model(
        stream_key, num_agents=num_agents, num_steps=num_steps, dtype=dtype, **MILD | model
    )
    weights = damjax.weights.dirichlet(weights_key, num_agents, concentration=concentration, dtype=dtype)
    return stream, weights


def routed(weights):
    return damjax.routing.compile_routes(GRAPH, np.asarray(weights)).delays


def random_round_trips(seed, *, num_steps=400, longest=20, lost=0.1):
    """A table of the steps: up to ``longest``, a share of the questions lost."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, longest + 1, (num_steps, 10, 10))
    return np.where(rng.random(table.shape) < lost, -1, table)


def with_round_trips(weights, table, rate=None):
    """DAM-TOGD under the round trips (T, N, N) of every step's questions."""
    table = jnp.asarray(table)
    return damjax.dam_togd(
        DELTA,
        weights,
        lambda time: table[time - 1],
        learning_rate=inverse_sqrt(1.0) if rate is None else rate,
        domain=BALL,
        max_delay=int(table.max()),
    )


def rate_of_agent_1(rate):
    """0.5 for everybody else."""
    rates = jnp.full(10, 0.5).at[1].set(rate)
    return lambda count: rates


def signs(findings):
    return [finding.sign for finding in findings]


def only(findings, sign):
    """The one finding of a run that shows one sign."""
    assert signs(findings) == [sign], findings
    assert findings[0].value > findings[0].threshold
    return findings[0]


def hand_made(path):
    """A trace of one agent whose memory (1, 1) follows a path, against the target 1 of a constant stream."""
    num_steps = len(path)
    stream = damjax.streams.from_arrays(np.ones((num_steps, 1, 1)), np.ones((num_steps, 1, 1)))
    info = damjax.Info(
        time=jnp.arange(1, num_steps + 1),
        grad_norm=jnp.ones((num_steps, 1)),
        num_applied=jnp.ones((num_steps, 1), int),
        projected=jnp.zeros((num_steps, 1), bool),
        finite=jnp.ones((num_steps, 1), bool),
    )
    return stream, damjax.Trace(jnp.asarray(path, float).reshape(-1, 1, 1, 1), info)

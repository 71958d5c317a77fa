"""The gradient of the regret in rate constant and weights through a whole run, beside the run itself."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

import damjax
from tests.benchmarks.kernel import DATA

NUM_AGENTS, REPEATS = 10, 7


def regret(scale, weights, stream, *, delays, checkpoint_every):
    """Total regret of DAM-TOGD at the end of the stream."""
    objective, ball = damjax.objectives.delta_net(), damjax.domains.frobenius_ball(40.0)
    rate = damjax.schedules.inverse_sqrt(scale)
    longest = int(delays.max())
    algorithm = damjax.dam_togd(objective, weights, delays, learning_rate=rate, domain=ball, max_delay=longest)
    _, losses = damjax.simulate(
        algorithm,
        jnp.zeros((NUM_AGENTS, stream.values.shape[2], stream.keys.shape[2]), weights.dtype),
        stream,
        observe=damjax.regret.observe_losses(objective, weights),
        checkpoint_every=checkpoint_every,
    )
    return damjax.regret.static_regret(losses, objective, weights, ball, stream, [len(stream.keys)]).sum()


def measure(fun, arguments):
    """Best wall time of a call in seconds, and XLA's temporary memory in MiB."""
    compiled = jax.jit(fun).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    best = np.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        best = min(best, time.perf_counter() - start)
    memory = compiled.memory_analysis()
    return best, memory.temp_size_in_bytes / 2**20 if memory else np.nan


def table(num_steps: int) -> None:
    """Print the table, for one run at T = ``num_steps`` and at ten times that."""
    print(f"{'gradient of the regret in c and W':40s} {'T':>6s} {'ms':>9s} {'x run':>7s} {'temp MiB':>9s}")
    weights = damjax.weights.dirichlet(jax.random.key(0), NUM_AGENTS)
    delays = damjax.routing.compile_routes(damjax.graphs.paper_network(), np.asarray(weights)).delays
    for steps in (num_steps, 10 * num_steps):
        stream, _ = damjax.streams.linear_model(jax.random.key(1), num_steps=steps, **DATA)
        arguments = (jnp.asarray(1.5), weights, stream)
        plain = functools.partial(regret, delays=delays, checkpoint_every=None)
        segmented = functools.partial(regret, delays=delays, checkpoint_every=int(steps**0.5))
        baseline, _ = measure(plain, arguments)
        for name, fun in (
            ("run and regret", plain),
            ("gradient", jax.value_and_grad(plain, argnums=(0, 1))),
            ("gradient, a checkpoint every sqrt(T)", jax.value_and_grad(segmented, argnums=(0, 1))),
        ):
            seconds, megabytes = measure(fun, arguments)
            ratio = seconds / baseline
            print(f"{name:40s} {steps:6d} {seconds * 1e3:9.2f} {ratio:6.1f}x {megabytes:9.1f}", flush=True)

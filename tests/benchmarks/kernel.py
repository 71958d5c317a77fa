"""Figure 1's workload, 352 runs of DAM-TOGD, beside batched NumPy."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

import damjax
from tests.benchmarks import numpy_baseline

RADIUS = 60.0
NUM_AGENTS = 10


def workload(num_seeds: int, num_correlations: int, num_steps: int):
    """Streams, weights and delays of the runs, as NumPy arrays with the runs in front."""

    def make(key, correlation):
        stream_key, weights_key = jax.random.split(key)
        stream, _ = damjax.streams.linear_model(stream_key, num_steps=num_steps, correlation=correlation)
        return stream.keys, stream.values, damjax.weights.dirichlet(weights_key, NUM_AGENTS)

    keys = jax.random.split(jax.random.key(0), num_seeds)
    over_both = jax.vmap(jax.vmap(make, in_axes=(None, 0)), in_axes=(0, None))
    arrays = jax.jit(over_both)(keys, jnp.linspace(0, 1, num_correlations))
    graph = damjax.graphs.paper_network()
    delays = damjax.routing.compile_routes(graph, np.full((NUM_AGENTS, NUM_AGENTS), 1 / NUM_AGENTS)).delays
    return *(np.asarray(a).reshape(-1, *a.shape[2:]) for a in arrays), delays


def run(keys, values, weights, scale, *, delays):
    """One run: the final memories and the cumulative personalised losses."""
    objective = damjax.objectives.delta_net()
    algorithm = damjax.dam_togd(
        objective,
        weights,
        delays,
        learning_rate=damjax.schedules.inverse_sqrt(scale),
        domain=damjax.domains.frobenius_ball(RADIUS),
    )
    start = jnp.zeros((keys.shape[1], values.shape[2], keys.shape[2]), keys.dtype)
    state, losses = damjax.simulate(
        algorithm,
        start,
        damjax.Associations(keys, values),
        observe=damjax.regret.observe_losses(objective, weights),
    )
    return state.params, losses.sum(axis=0)


def measure(compiled, arguments, repeats: int = 3):
    """Result and best wall time in seconds."""
    result, best = jax.block_until_ready(compiled(*arguments)), np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        best = min(best, time.perf_counter() - start)
    return result, best


def report(name, seconds, compile_seconds, num_runs, num_steps, baseline):
    """Print one row: times are per step of the whole batch, the ratio is per run against NumPy."""
    per_step = seconds / num_steps * 1e3
    ratio = baseline / (seconds / num_runs)
    print(f"{name:34s} {num_runs:5d} {compile_seconds:10.2f} {seconds:8.2f} {per_step:10.3f} {ratio:9.1f}x", flush=True)


def table(num_seeds: int, num_steps: int) -> None:
    """Print the table, for ``num_seeds`` seeds times 11 correlations."""
    keys, values, weights, delays = workload(num_seeds, 11, num_steps)
    num_runs = len(keys)
    scale = np.full(num_runs, 1.0, np.float32)

    by_time = (np.ascontiguousarray(keys.swapaxes(0, 1)), np.ascontiguousarray(values.swapaxes(0, 1)))
    start = time.perf_counter()
    expected = numpy_baseline.dam_togd(*by_time, weights, delays, scale=scale, radius=np.float32(RADIUS))
    numpy_seconds = time.perf_counter() - start
    baseline = numpy_seconds / num_runs
    print(f"{'':34s} {'runs':>5s} {'compile s':>10s} {'run s':>8s} {'ms / step':>10s} {'per run':>10s}")
    report("batched NumPy", numpy_seconds, 0.0, num_runs, num_steps, baseline)

    one = functools.partial(run, delays=delays)
    devices = jax.devices()
    everything = (keys, values, weights, scale)
    alone = (keys[:1], values[:1], weights[:1], scale[:1])
    cases = [
        ("damjax, jax.vmap", jax.vmap(one), devices[:1], everything),
        ("damjax, vmap_last", damjax.vmap_last(one), devices[:1], everything),
        ("damjax, one run alone", jax.vmap(one), devices[:1], alone),
    ]
    if len(devices) > 1 and num_runs % len(devices) == 0:
        kind = f"{len(devices)} {devices[0].platform} devices"
        cases.insert(2, (f"damjax, vmap_last, {kind}", damjax.vmap_last(one), devices, everything))
        cases.insert(1, (f"damjax, jax.vmap, {kind}", jax.vmap(one), devices, everything))
    for name, batched, used, arrays in cases:
        mesh = jax.sharding.Mesh(np.array(used), ("runs",))
        placed = jax.device_put(arrays, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("runs")))
        start = time.perf_counter()
        compiled = jax.jit(batched).lower(*placed).compile()
        compile_seconds = time.perf_counter() - start
        (params, losses), seconds = measure(compiled, placed)
        np.testing.assert_allclose(losses, expected[1][: len(losses)], rtol=1e-3)
        np.testing.assert_allclose(params, expected[0][: len(params)], rtol=1e-2, atol=1e-3)
        report(name, seconds, compile_seconds, len(arrays[0]), num_steps, baseline)

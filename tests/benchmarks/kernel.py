"""Figure 1's workload, 352 runs of DAM-TOGD, beside batched NumPy; and one network alone beside NumPy's.

Every program gets its data in the order it likes best: NumPy time first, ``jax.vmap`` runs first, ``vmap_last`` runs
last. Batches of ``BATCH`` runs on each device, one after the other, keep what a step touches in a core's own cache,
where all 352 runs at once would stream it from memory; fewer runs leave the fixed cost of an operation uncovered.

What is left to gain: a C loop that makes one run after the other is about twice as fast on a core, and eight times for
one network alone. All of its state lies in the first-level cache, and what a step computes stays in registers: each
residual is loaded once and meets five features. XLA runs a step as some twenty loops, each of which reads its operands
from the second-level cache and writes its result there, and its sums form one output at a time and load their operands
anew for each. For one network alone the axes of length five are too short for the vector units as well, and a fifth of
its time goes into starting the twenty loops: with the environment variable
``XLA_FLAGS=--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=100000000`` XLA compiles them all, and
the loop over time, as one function.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import damjax
from tests.benchmarks import numpy_baseline

RADIUS = 60.0
NUM_AGENTS = 10
BATCH = 88
REPEATS = 3
COMPILATIONS: list[float] = []
# Gentler than the defaults: at every correlation the one rate is stable, and single precision agrees to the end.
DATA: dict[str, Any] = {"personal_mean": (-1.0, 1.0), "personal_variance": (0.0, 1.0), "noise_std": 0.1}


class Measured(NamedTuple):
    """Final memories and cumulative losses of all runs, seconds of a run and of the compilation before the first."""

    params: np.ndarray
    losses: np.ndarray
    seconds: float
    compile_seconds: float


def count_compilations(event: str, duration_secs: float, **_: Any) -> None:
    """A listener: notes how long each compilation took."""
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILATIONS.append(duration_secs)


def workload(num_seeds: int, num_correlations: int, num_steps: int, **sizes: Any):
    """Streams, weights and delays of the runs, as NumPy arrays with the runs in front; ``sizes`` as key_dim=6."""

    def make(key, correlation):
        stream_key, weights_key = jax.random.split(key)
        settings = DATA | sizes
        stream, _ = damjax.streams.linear_model(stream_key, num_steps=num_steps, correlation=correlation, **settings)
        return stream.keys, stream.values, damjax.weights.dirichlet(weights_key, NUM_AGENTS)

    keys = jax.random.split(jax.random.key(0), num_seeds)
    over_both = jax.vmap(jax.vmap(make, in_axes=(None, 0)), in_axes=(0, None))
    arrays = jax.jit(over_both)(keys, jnp.linspace(0, 1, num_correlations))
    graph = damjax.graphs.paper_network()
    delays = damjax.routing.compile_routes(graph, np.full((NUM_AGENTS, NUM_AGENTS), 1 / NUM_AGENTS)).delays
    return *(np.asarray(a).reshape(-1, *a.shape[2:]) for a in arrays), delays


def run(keys, values, weights, scale, *, delays, feature_map=damjax.features.identity):
    """One run: the final memories and the cumulative personalised losses."""
    objective = damjax.objectives.delta_net(feature_map)
    algorithm = damjax.dam_togd(
        objective,
        weights,
        delays,
        learning_rate=damjax.schedules.inverse_sqrt(scale),
        domain=damjax.domains.frobenius_ball(RADIUS),
    )
    features = jax.eval_shape(feature_map, keys[0, 0])
    start = jnp.zeros((keys.shape[1], values.shape[2], features.shape[-1]), keys.dtype)
    state, losses = damjax.simulate(
        algorithm,
        start,
        damjax.Associations(keys, values),
        observe=damjax.regret.observe_losses(objective, weights),
    )
    return state.params, losses.sum(axis=0)


def run_alone(keys, values, weights, scale, *, delays):
    """``run`` on a batch of one, without any mapping."""
    params, losses = run(keys[0], values[0], weights[0], scale[0], delays=delays)
    return params[None], losses[None]


def measure(program: Callable[[], tuple[Any, Any]]) -> Measured:
    """Run a program until it is warm, then take its best time; what the first run took longer, it compiled."""
    before, start = len(COMPILATIONS), time.perf_counter()
    params, losses = program()
    first = time.perf_counter() - start
    compiled, best = len(COMPILATIONS), np.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        program()
        best = min(best, time.perf_counter() - start)
    assert len(COMPILATIONS) == compiled, "a second call compiled again"
    compiling = first - best if compiled > before else 0.0
    return Measured(np.asarray(params), np.asarray(losses), best, compiling)


def in_batches(mapped, arrays, size: int, devices, axis: int) -> Callable[[], tuple[Any, Any]]:
    """A program that makes all runs, ``size`` at a time on each device.

    Args:
        mapped: the run, mapped over ``axis`` of its arguments.
        arrays: the arguments of all runs, runs in front.
        size: runs on a device at a time; the last batch is filled up with repetitions.
        devices: to spread a batch over.
        axis: where ``mapped`` wants the runs, 0 or -1.
    """
    num_runs, together = len(arrays[0]), size * len(devices)
    mesh = Mesh(np.array(devices), ("runs",))
    specs = tuple(PartitionSpec(*[None] * (array.ndim - 1 if axis else 0), "runs") for array in arrays)
    batched = jax.jit(
        jax.shard_map(mapped, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("runs"), check_vma=False)
    )
    batches = [
        tuple(
            jax.device_put(np.ascontiguousarray(np.moveaxis(array[chosen], 0, axis)), NamedSharding(mesh, spec))
            for array, spec in zip(arrays, specs, strict=True)
        )
        for chosen in np.resize(np.arange(num_runs), (-(-num_runs // together), together))
    ]

    def program():
        done = [jax.block_until_ready(batched(*batch)) for batch in batches]
        params, losses = (np.concatenate(parts)[:num_runs] for parts in zip(*done, strict=True))
        return params, losses

    return program


def report(name: str, measured: Measured, num_steps: int, baseline: Measured) -> None:
    """Check a row against NumPy's results and print it: time is for one step of all its runs."""
    np.testing.assert_allclose(measured.losses, baseline.losses, rtol=1e-3)
    np.testing.assert_allclose(measured.params, baseline.params, rtol=1e-2, atol=1e-3)
    per_step, ratio = measured.seconds / num_steps * 1e3, baseline.seconds / measured.seconds
    runs, compiling = len(measured.losses), measured.compile_seconds
    print(f"{name:40s} {runs:5d} {compiling:10.2f} {per_step:10.4f} {ratio:9.1f}x", flush=True)


def table(num_seeds: int, num_steps: int) -> None:
    """Print the table, for ``num_seeds`` seeds times 11 correlations."""
    jax.monitoring.register_event_duration_secs_listener(count_compilations)
    *made, delays = workload(num_seeds, 11, num_steps)
    arrays = (*made, np.full(len(made[0]), 1.0, np.float32))
    one, devices = functools.partial(run, delays=delays), jax.devices()
    last = damjax.vmap_last(one, in_axes=-1)
    size, num_runs = min(BATCH, len(made[0])), len(made[0])
    rows = {
        "damjax, jax.vmap": in_batches(jax.vmap(one), arrays, num_runs, devices[:1], 0),
        "damjax, vmap_last": in_batches(last, arrays, num_runs, devices[:1], -1),
        f"damjax, vmap_last, batches of {size}": in_batches(last, arrays, size, devices[:1], -1),
    }
    if len(devices) > 1:
        kind = f"{len(devices)} {devices[0].platform} devices"
        rows[f"damjax, batches of {size}, {kind}"] = in_batches(last, arrays, size, devices, -1)
    print(f"{'':40s} {'runs':>5s} {'compile s':>10s} {'ms / step':>10s} {'to NumPy':>10s}")
    compare({"NumPy, batched": in_numpy(arrays, delays), **rows}, num_steps)

    first = tuple(array[:1] for array in arrays)
    alone = jax.jit(functools.partial(run_alone, delays=delays))
    placed = jax.device_put(first)
    rows = {
        "NumPy, one network, einsum": in_einsums(first, delays),
        "NumPy, one network, matmul": in_numpy(first, delays),
        "damjax, one network": lambda: jax.block_until_ready(alone(*placed)),
    }
    compare(rows, num_steps)


def in_numpy(arrays, delays) -> Callable[[], tuple[Any, Any]]:
    """The runs in batched NumPy."""
    keys, values, weights, scale = arrays
    by_time = (np.ascontiguousarray(keys.swapaxes(0, 1)), np.ascontiguousarray(values.swapaxes(0, 1)))
    return lambda: numpy_baseline.dam_togd(*by_time, weights, delays, scale=scale, radius=np.float32(RADIUS))


def in_einsums(arrays, delays) -> Callable[[], tuple[Any, Any]]:
    """The first run in NumPy, as one writes it for one network."""
    keys, values, weights, scale = (array[0] for array in arrays)

    def program():
        params, losses = numpy_baseline.one_network(
            keys, values, weights, delays, scale=scale, radius=np.float32(RADIUS)
        )
        return params[None], losses[None]

    return program


def compare(rows: dict[str, Callable[[], tuple[Any, Any]]], num_steps: int) -> None:
    """Print the rows; the first is the baseline."""
    (name, program), *others = rows.items()
    baseline = measure(program)
    report(name, baseline, num_steps, baseline)
    for name, program in others:
        report(name, measure(program), num_steps, baseline)

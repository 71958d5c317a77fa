"""One large network with an edge list of interests, beside NumPy; what dynamics cost, how cost grows; its routing."""

import time
import tracemalloc
from typing import NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import damjax
from damjax.weights import SparseWeights
from tests.benchmarks import numpy_baseline
from tests.benchmarks.channels import NUM_EPOCHS, evenly

RADIUS, SCALE = 20.0, 0.1
ROUTED_AGENTS, NEIGHBOURS = 4096, 31  # about 63,000 links


class Size(NamedTuple):
    """What the cost of a step depends on."""

    num_agents: int = 2048
    num_interests: int = 16
    dimension: int = 32  # of keys and of values
    max_delay: int = 8


DYNAMIC, MOVING = Size(10_000, 8, 16, 20), Size(512, 8, 16, 20)
SPEED = 0.01  # at every border agents of the moving network go a tenth of the reach of a link


class Cost(NamedTuple):
    """Of the compiled run."""

    milliseconds: float  # per step
    compile_seconds: float
    mebibytes: float  # arguments, results and temporaries together


def workload(size: Size, num_steps: int):
    """Keys, values, interests and delays, as NumPy arrays in single precision."""
    rng = np.random.default_rng(0)
    shape = (num_steps, size.num_agents, size.dimension)
    table = damjax.weights.sparse_dirichlet(jax.random.key(0), size.num_agents, size.num_interests)
    delays = 2 * rng.integers(0, size.max_delay // 2 + 1, table.agents.shape)
    delays[:, 0], delays[0, -1] = 0, size.max_delay
    keys, values = rng.uniform(-1, 1, shape).astype(np.float32), rng.standard_normal(shape, np.float32)
    return keys, values, SparseWeights(*map(np.asarray, table)), delays


def run_damjax(keys, values, table, delays, *, max_delay=None):
    """Compile the run; a function of nothing that makes it, and its cost but for the time."""
    algorithm = damjax.dam_togd(
        damjax.objectives.delta_net(),
        table,
        delays,
        max_delay=max_delay,
        learning_rate=damjax.schedules.inverse_sqrt(SCALE),
        domain=damjax.domains.frobenius_ball(RADIUS),
    )

    def run(keys, values):
        params = jnp.zeros((keys.shape[1], values.shape[2], keys.shape[2]), keys.dtype)
        state, _ = damjax.simulate(
            algorithm,
            params,
            damjax.Associations(keys, values),
            observe=lambda params, associations, info: (),
            unroll=2,
        )
        return state.params

    arguments = (jnp.asarray(keys), jnp.asarray(values))
    start = time.perf_counter()
    compiled = jax.jit(run).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    sizes = compiled.memory_analysis()
    used = 0 if sizes is None else sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return lambda: jax.block_until_ready(compiled(*arguments)), Cost(np.nan, compile_seconds, used / 2**20)


def run_numpy(baseline, keys, values, table, delays):
    """The same, by a baseline."""
    settings = {"scale": SCALE, "radius": np.float32(RADIUS)}
    return lambda: baseline(keys, values, table.agents, table.weights, delays, **settings)


def best(runs, num_steps: int, repeats: int):
    """Results and the least milliseconds per step of each, in turn, so that all see the same machine."""
    results, least = [run() for run in runs], np.full(len(runs), np.inf)
    for _ in range(repeats):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            results[i] = run()
            least[i] = min(least[i], (time.perf_counter() - start) / num_steps * 1e3)
    return results, least.tolist()


def compare(size: Size, num_steps: int, repeats: int) -> None:
    """Print the rows of one network, NumPy's and damjax's; the memories must agree. Ratios are to the first row."""
    problem = workload(size, num_steps)
    run, cost = run_damjax(*problem)
    baselines = numpy_baseline.network, numpy_baseline.network_in_place
    runs = [*(run_numpy(baseline, *problem) for baseline in baselines), run]
    (expected, _, found), (baseline, reusing, milliseconds) = best(runs, num_steps, repeats)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    rows = {
        "batched NumPy": Cost(baseline, 0.0, np.nan),
        "batched NumPy, in place": Cost(reusing, 0.0, np.nan),
        "damjax, sparse weights": cost._replace(milliseconds=milliseconds),
    }
    shape = "".join(f"{number:8d}" for number in size)
    for name, cost in rows.items():
        ratio = baseline / cost.milliseconds
        print(
            f"{name:28s}{shape} {cost.milliseconds:9.2f} {ratio:6.1f}x {cost.compile_seconds:9.2f}"
            f" {cost.mebibytes:8.0f}",
            flush=True,
        )


def growth(field: str, values: list[int], num_steps: int = 20, repeats: int = 3) -> None:
    """Print time and memory along one of the sizes, and the exponents of their growth."""
    costs = []
    for value in values:
        run, cost = run_damjax(*workload(Size()._replace(**{field: value}), num_steps))
        _, (milliseconds,) = best([run], num_steps, repeats)
        costs.append(cost._replace(milliseconds=milliseconds))
    exponents = [
        np.polyfit(np.log(values), np.log([getattr(cost, what) for cost in costs]), 1)[0]
        for what in ("milliseconds", "mebibytes")
    ]
    for value, cost in zip(values, costs, strict=True):
        print(f"{field:15s} {value:8d} {cost.milliseconds:10.2f} {cost.mebibytes:9.0f}", flush=True)
    print(f"{'':15s} {'exponent':>8s} {exponents[0]:10.2f} {exponents[1]:9.2f}", flush=True)


def dynamics(size: Size, num_steps: int, *, moving: bool = False) -> None:
    """Print what delays at random, or a network that moves, cost beside static delays; ratios are to the first row.

    In the moving network delays are those of its paths, and answers are lost at every border.
    """
    keys, values, interests, delays = workload(size, num_steps)
    laws = {"static, rings": delays, "static, bins": lambda step: jnp.asarray(delays)}
    longest = dict.fromkeys(laws, size.max_delay)
    if moving:
        start = time.perf_counter()
        laws["moving, ten borders"] = timeline = moving_network(size.num_agents, interests, num_steps)
        longest["moving, ten borders"] = timeline.max_delay
        print(f"routing {NUM_EPOCHS} networks of {size.num_agents}: {time.perf_counter() - start:.1f} s", flush=True)
    else:
        laws["geometric"] = damjax.channels.geometric(0.2, key=jax.random.key(0), max_delay=size.max_delay)
        longest["geometric"] = size.max_delay
    programs = {name: run_damjax(keys, values, interests, law, max_delay=longest[name]) for name, law in laws.items()}
    _, times = best([run for run, _ in programs.values()], num_steps, 3)
    for (name, (_, cost)), milliseconds in zip(programs.items(), times, strict=True):
        shape = "".join(f"{number:8d}" for number in size._replace(max_delay=longest[name]))
        print(
            f"{name:28s}{shape} {milliseconds:9.2f} {times[0] / milliseconds:6.2f}x {cost.compile_seconds:9.2f}"
            f" {cost.mebibytes:8.0f}",
            flush=True,
        )


def moving_network(num_agents: int, interests: SparseWeights, num_steps: int) -> damjax.routing.Timeline:
    """Agents that move, with a border for every new place."""
    radius = np.sqrt(NEIGHBOURS / (np.pi * num_agents))
    graphs = damjax.graphs.moving_geometric(num_agents, radius, speed=SPEED, num_epochs=NUM_EPOCHS, seed=0)
    epochs = evenly(graphs, num_steps)
    return damjax.routing.compile_timeline(epochs, interests, method="shortest_path", unreachable="lost")


def route(method: str) -> tuple[float, float, int]:
    """Seconds and peak memory in MiB of routing a geometric network, and its longest delay."""
    graph = nx.random_geometric_graph(ROUTED_AGENTS, np.sqrt(NEIGHBOURS / (np.pi * ROUTED_AGENTS)), seed=0)
    table = damjax.weights.sparse_dirichlet(jax.random.key(0), ROUTED_AGENTS, 16)
    start = time.perf_counter()
    longest = damjax.routing.compile_routes(graph, table, method=method).max_delay
    seconds = time.perf_counter() - start
    # Once more, since watching every allocation takes time of its own.
    tracemalloc.start()
    damjax.routing.compile_routes(graph, table, method=method)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return seconds, peak / 2**20, longest


def table(num_steps: int) -> None:
    """Print the tables, the first for runs of ``num_steps``."""
    header = "".join(f"{name:>8s}" for name in ("N", "K", "d", "delay"))
    print(f"{'':28s}{header} {'ms / step':>9s} {'':>7s} {'compile s':>9s} {'MiB':>8s}")
    compare(Size(4096, 16, 64, 20), num_steps, repeats=4)
    compare(Size(100_000, 16, 16, 8), max(num_steps // 5, 1), repeats=2)

    print("\ndynamics")
    dynamics(DYNAMIC, min(num_steps, 50))
    dynamics(MOVING, min(num_steps, 50), moving=True)

    print(f"\n{'growth':15s} {'':>8s} {'ms / step':>10s} {'MiB':>9s}")
    growth("num_agents", [1024, 2048, 4096, 8192])
    growth("num_interests", [4, 8, 16, 32])
    growth("dimension", [16, 32, 64, 128])
    growth("max_delay", [4, 8, 16, 32])

    seconds, mebibytes, longest = route("shortest_path")
    print(f"\nrouting {ROUTED_AGENTS} agents, 16 interests each: ", end="")
    print(f"{seconds:.1f} s, {mebibytes:.0f} MiB, delays to {longest}", flush=True)

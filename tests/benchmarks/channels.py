"""Bins beside rings on delays that both can serve, and what random delays and failing links cost: Figure 1's workload.

Delays of a law are drawn anew for every run and step: a hash for every question, which is most of what they cost.
"""

import functools

import jax
import networkx as nx
import numpy as np

import damjax
from damjax import channels
from damjax.algorithms import descend
from tests.benchmarks import kernel

P, LOSS = 0.2, 0.05
NUM_EPOCHS = 11  # ten borders


def run(keys, values, weights, seed, *, connect):
    """One run on a channel: the final memories, and how many gradients each agent applied."""
    algorithm = descend(
        connect(damjax.objectives.delta_net(), weights, seed),
        learning_rate=damjax.schedules.inverse_sqrt(0.1),
        domain=damjax.domains.frobenius_ball(kernel.RADIUS),
    )
    start = jax.numpy.zeros((keys.shape[1], values.shape[2], keys.shape[2]), keys.dtype)
    stream = damjax.Associations(keys, values)
    state, applied = damjax.simulate(algorithm, start, stream, observe=lambda params, seen, info: info.num_applied)
    return state.params, applied.sum(axis=0)


def alone(arrays, connect):
    """A program of the first run alone."""
    one = jax.jit(functools.partial(run, connect=connect))
    first = [jax.numpy.asarray(array[0]) for array in arrays]
    return lambda: jax.block_until_ready(one(*first))


def evenly(graphs: list[nx.Graph], num_steps: int) -> list[tuple[int, nx.Graph, None]]:
    """Epochs of these networks, as long as each other, in all of which everybody is present."""
    first_steps = np.linspace(1, max(num_steps, len(graphs)), len(graphs)).astype(int).tolist()
    return [(first, graph, None) for first, graph in zip(first_steps, graphs, strict=True)]


def failing(num_steps: int) -> damjax.routing.Timeline:
    """The network whose links fail, a tenth of them in each of as many epochs as there are."""
    graphs = damjax.graphs.failing_links(damjax.graphs.paper_network(), 0.1, num_epochs=NUM_EPOCHS, seed=0)
    uniform = np.full((kernel.NUM_AGENTS, kernel.NUM_AGENTS), 1 / kernel.NUM_AGENTS)
    return damjax.routing.compile_timeline(evenly(graphs, num_steps), uniform, unreachable="lost")


def table(num_seeds: int, num_steps: int) -> None:
    """Print milliseconds per step of one run alone and of all runs, mapped by ``vmap_last``."""
    keys, values, weights, delays = kernel.workload(num_seeds, 11, num_steps)
    arrays = keys, values, weights, np.arange(len(keys), dtype=np.uint32)
    longest = int(delays.max())

    def random(seed):
        return channels.geometric(P, key=jax.random.key(seed), max_delay=longest)

    timeline = failing(num_steps)
    rows = {
        "static, rings": lambda loss, w, seed: channels.residual_rings(loss, w, delays),
        "static, bins": lambda loss, w, seed: channels.arrival_bins(loss, w, delays),
        "geometric": lambda loss, w, seed: channels.arrival_bins(loss, w, random(seed)),
        "geometric, lossy": lambda loss, w, seed: channels.arrival_bins(
            loss, w, channels.lossy(random(seed), LOSS, key=jax.random.key(seed)), reweight=True
        ),
        "timeline, ten borders": lambda loss, w, seed: channels.arrival_bins(loss, w, timeline),
    }
    print(f"{'channel, ms / step':24s} {'one run':>12s} {f'{len(keys)} runs':>12s}")
    for name, connect in rows.items():
        single = kernel.measure(alone(arrays, connect))
        mapped = damjax.vmap_last(functools.partial(run, connect=connect), in_axes=-1)
        size = min(kernel.BATCH, len(keys))
        everyone = kernel.measure(kernel.in_batches(mapped, arrays, size, jax.devices()[:1], -1))
        per_step = [measured.seconds / num_steps * 1e3 for measured in (single, everyone)]
        print(f"{name:24s} {per_step[0]:12.4f} {per_step[1]:12.3f}", flush=True)

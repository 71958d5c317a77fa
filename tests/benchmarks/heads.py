"""Memories of two heads beside those of one head with as many floats: Figure 1's workload.

A step costs so much for every residual, to read, to weigh and to keep it, and so much for every float of a memory. Two
heads of pieces of the cue have half the floats of one head on all of it, and as many residuals.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import damjax
from damjax import features
from tests.benchmarks import kernel

VALUE_DIM, TRIED = 6, 4


class Memory(NamedTuple):
    """A row of the table: dk, and the feature map."""

    key_dim: int
    feature_map: features.FeatureMap


ROWS = {
    "one head, dk = 6": Memory(6, features.identity),
    "two heads of a cue, dk = 6": Memory(6, features.heads(features.identity, jnp.negative)),
    "two heads of its pieces, dk = 12": Memory(12, features.split(2)),
    "one head, dk = 3": Memory(3, features.identity),
    "two heads of its pieces, dk = 6": Memory(6, features.split(2)),
}


def slow_truth(arrays, delays, feature_map):
    """The first runs through arrival bins, by a memory of which nothing is known."""

    def apply(params, key):
        phi = jnp.atleast_2d(feature_map(key))
        return jnp.einsum("hij,hj->hi", params.reshape(len(phi), -1, phi.shape[-1]), phi).ravel()

    def run(keys, values, weights, scale):
        objective = damjax.objectives.of_memory(apply, lambda z, value, time: 0.5 * jnp.sum((z - value) ** 2))
        algorithm = damjax.dam_togd(
            objective,
            weights,
            delays,
            learning_rate=damjax.schedules.inverse_sqrt(scale),
            domain=damjax.domains.frobenius_ball(kernel.RADIUS),
        )
        shape = (keys.shape[1], values.shape[2], jax.eval_shape(feature_map, keys[0, 0]).shape[-1])
        observe = lambda params, seen, info: info.finite  # noqa: E731
        return damjax.simulate(algorithm, jnp.zeros(shape), damjax.Associations(keys, values), observe=observe)[
            0
        ].params

    return jax.jit(jax.vmap(run))(*(array[:TRIED] for array in arrays))


def table(num_seeds: int, num_steps: int) -> None:
    """Print milliseconds per step of all runs, for ``num_seeds`` seeds times 11 correlations, beside one head's."""
    baselines = {}
    print(f"{'memory, dv = 6':40s} {'runs':>5s} {'floats':>7s} {'ms / step':>10s} {'to one head':>12s}")
    for name, (key_dim, feature_map) in ROWS.items():
        *made, delays = kernel.workload(num_seeds, 11, num_steps, key_dim=key_dim, value_dim=VALUE_DIM)
        arrays = (*made, np.full(len(made[0]), 0.5, np.float32))
        one = functools.partial(kernel.run, delays=delays, feature_map=feature_map)
        mapped, size = damjax.vmap_last(one, in_axes=-1), min(kernel.BATCH, len(made[0]))
        measured = kernel.measure(kernel.in_batches(mapped, arrays, size, jax.devices()[:1], -1))
        truth = slow_truth(arrays, delays, feature_map)
        np.testing.assert_allclose(measured.params[:TRIED], truth, rtol=1e-2, atol=1e-3)
        floats, per_step = truth[0, 0].size, measured.seconds / num_steps * 1e3
        ratio = per_step / baselines.setdefault(floats, per_step)
        print(f"{name:40s} {len(made[0]):5d} {floats:7d} {per_step:10.4f} {ratio:11.2f}x", flush=True)

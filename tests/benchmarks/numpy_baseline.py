"""DAM-TOGD in batched NumPy, as one would write it for speed: the baseline of the benchmark.

Runs come first, every contraction is a batched ``np.matmul``, the messages under way are residuals and features in ring
buffers, and no Python loop runs over anything but time.
"""

import numpy as np


def dam_togd(keys, values, weights, delays, *, scale, radius):
    """All runs at once: keys (T, R, N, dk), values (T, R, N, dv), weights (R, N, N), delays (N, N), scale (R,).

    Returns the final memories (R, N, dv, dk) and the cumulative personalised losses (R, N).
    """
    num_steps, num_runs, num_agents, key_dim = keys.shape
    value_dim, dtype = values.shape[-1], keys.dtype
    length = int(delays.max()) + 1
    params = np.zeros((num_runs, num_agents, value_dim, key_dim), dtype)
    residuals = np.zeros((length, num_agents, num_agents, num_runs, value_dim), dtype)
    features = np.zeros((length, num_agents, num_runs, key_dim), dtype)
    losses = np.zeros((num_runs, num_agents), dtype)
    receiver, sender = np.arange(num_agents)[:, None], np.arange(num_agents)[None, :]
    by_pair = weights.transpose(1, 2, 0)[..., None]
    for time in range(1, num_steps + 1):
        key, value = keys[time - 1], values[time - 1]
        recalled = params.reshape(num_runs, -1, key_dim) @ key.swapaxes(1, 2)
        recalled = recalled.reshape(num_runs, num_agents, value_dim, num_agents)
        residual = recalled.transpose(1, 3, 0, 2) - value.transpose(1, 0, 2)
        losses += (
            0.5 * np.matmul(weights[:, :, None, :], (residual**2).sum(-1).transpose(2, 0, 1)[..., None])[..., 0, 0]
        )
        residuals[time % length] = residual
        features[time % length] = key.transpose(1, 0, 2)
        slots = (time - delays) % length
        weighted = by_pair * residuals[slots, receiver, sender]
        arrived = features[slots, sender]
        gradient = np.matmul(weighted.transpose(2, 0, 3, 1), arrived.transpose(2, 0, 1, 3))
        params -= (scale / np.sqrt(time)).astype(dtype)[:, None, None, None] * gradient
        norm = np.sqrt((params**2).sum((-2, -1), keepdims=True))
        params *= radius / np.maximum(norm, radius)
    return params, losses


def one_network(keys, values, weights, delays, *, scale, radius):
    """One small network in einsums, the equations as they stand: keys (T, N, dk), values (T, N, dv), weights (N, N).

    Returns the final memories (N, dv, dk) and the cumulative personalised losses (N,).
    """
    num_steps, num_agents, key_dim = keys.shape
    value_dim, dtype = values.shape[-1], keys.dtype
    length = int(delays.max()) + 1
    params = np.zeros((num_agents, value_dim, key_dim), dtype)
    residuals = np.zeros((length, num_agents, num_agents, value_dim), dtype)
    features = np.zeros((length, num_agents, key_dim), dtype)
    losses = np.zeros(num_agents, dtype)
    receiver, sender = np.arange(num_agents)[:, None], np.arange(num_agents)[None, :]
    for time in range(1, num_steps + 1):
        residual = np.einsum("nij,mj->nmi", params, keys[time - 1]) - values[time - 1]
        losses += 0.5 * np.einsum("nm,nmi->n", weights, residual**2)
        residuals[time % length], features[time % length] = residual, keys[time - 1]
        slots = (time - delays) % length
        weighted = weights[:, :, None] * residuals[slots, receiver, sender]
        gradient = np.einsum("nmi,nmj->nij", weighted, features[slots, sender])
        params -= (scale / np.sqrt(time)).astype(dtype) * gradient
        norm = np.sqrt(np.einsum("nij,nij->n", params, params))
        params *= (radius / np.maximum(norm, radius))[:, None, None]
    return params, losses


def network(keys, values, agents, weights, delays, *, scale, radius):
    """One large network: keys (T, N, dk), values (T, N, dv), agents, weights and delays (N, K); the final memories."""
    num_steps, num_agents, key_dim = keys.shape
    value_dim, dtype = values.shape[-1], keys.dtype
    length = int(delays.max()) + 1
    params = np.zeros((num_agents, value_dim, key_dim), dtype)
    residuals = np.zeros((length, *agents.shape, value_dim), dtype)
    features = np.zeros((length, num_agents, key_dim), dtype)
    receiver, column = np.arange(num_agents)[:, None], np.arange(agents.shape[1])[None, :]
    for time in range(1, num_steps + 1):
        key, value = keys[time - 1], values[time - 1]
        residuals[time % length] = np.matmul(key[agents], params.swapaxes(1, 2)) - value[agents]
        features[time % length] = key
        slots = (time - delays) % length
        weighted = residuals[slots, receiver, column] * weights[..., None]
        gradient = np.matmul(weighted.swapaxes(1, 2), features[slots, agents])
        params -= dtype.type(scale / np.sqrt(time)) * gradient
        norm = np.sqrt((params**2).sum((-2, -1), keepdims=True))
        params *= radius / np.maximum(norm, radius)
    return params


def network_in_place(keys, values, agents, weights, delays, *, scale, radius):
    """The same, but gathers and products write into arrays that are made once, which spares the clearing of pages."""
    num_steps, num_agents, key_dim = keys.shape
    value_dim, dtype = values.shape[-1], keys.dtype
    num_interests, length = agents.shape[1], int(delays.max()) + 1
    params = np.zeros((num_agents, value_dim, key_dim), dtype)
    residuals = np.zeros((length, num_agents, num_interests, value_dim), dtype)
    features = np.zeros((length, num_agents, key_dim), dtype)
    by_key, by_value = (num_agents, num_interests, key_dim), (num_agents, num_interests, value_dim)
    shapes = (by_key, by_value, by_value, by_key, params.shape)
    rooms = [np.empty(shape, dtype) for shape in shapes]
    pairs = np.arange(num_agents * num_interests).reshape(num_agents, num_interests)
    for time in range(1, num_steps + 1):
        key, value = keys[time - 1], values[time - 1]
        cues = np.take(key, agents, axis=0, out=rooms[0], mode="clip")
        residual = np.matmul(cues, params.swapaxes(1, 2), out=residuals[time % length])
        residual -= np.take(value, agents, axis=0, out=rooms[1], mode="clip")
        features[time % length] = key
        slots = (time - delays) % length
        old = residuals.reshape(-1, value_dim)
        weighted = np.take(old, slots * pairs.size + pairs, axis=0, out=rooms[2], mode="clip")
        weighted *= (dtype.type(scale / np.sqrt(time)) * weights)[..., None]
        arrived = np.take(features.reshape(-1, key_dim), slots * num_agents + agents, axis=0, out=rooms[3], mode="clip")
        params -= np.matmul(weighted.swapaxes(1, 2), arrived, out=rooms[4])
        norm = np.sqrt(np.einsum("nij,nij->n", params, params))
        params *= (radius / np.maximum(norm, radius))[:, None, None]
    return params

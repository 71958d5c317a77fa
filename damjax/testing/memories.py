"""The laws of memories."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damjax._arrays import promoting, recall
from damjax._checks import check_count
from damjax.recall.memories.memory import Memory, check_is_memory
from damjax.testing.comparing import cast, check_parameters, check_same, digits, dtypes, require

__all__ = ["check_memory"]

SCALES = (0.1, 1.0)  # of what is added to the first parameters


def check_memory(memory: Memory, *, key_dim: int = 3, value_dim: int = 2, num_points: int = 4, seed: int = 0) -> None:
    """Raise where a memory breaks a law that objectives, algorithms or measures of recall rely on.

    ``init`` is a pure function of its key, and gives floating-point arrays whose shapes do not depend on it; ``apply``
    gives a recall (dv,) in the dtype of parameters and cue, finite and with finite derivatives at random parameters
    near the first ones, the same under jit and vmap. Of a memory with ``features``, ``apply`` is X phi(k), head by head
    where there are several.

    Args:
        memory: to be tried.
        key_dim: dk, of the cues that are drawn.
        value_dim: dv.
        num_points: how many are tried in each precision.
        seed: of the points.

    Raises:
        ValueError: the law that is broken, the numbers and the likely fix.

    Example:
        >>> import damjax
        >>> check_memory(damjax.recall.memories.mlp(3, 2, width=8))
        >>> check_memory(damjax.recall.memories.mlp(3, 5, width=8))
        Traceback (most recent call last):
        ValueError: memory.apply must give a recall (2,) in the dtype of the parameters, but it gives float32[5] ...
    """
    check_is_memory(memory)
    for name, count in (("key_dim", key_dim), ("value_dim", value_dim), ("num_points", num_points)):
        check_count(name, count)
    check_count("seed", seed, allow_zero=True)
    _check_init(memory, jax.random.key(seed))
    for dtype in dtypes():
        rng = np.random.default_rng(seed)
        points = [_draw(memory, rng, number, key_dim, dtype) for number in range(num_points)]
        _check_recall(memory, points[0], value_dim)
        for params, cue in points:
            _check_derivatives(memory, params, cue)
            if memory.features is not None:
                _check_features(memory, params, cue)
        _check_mapped(memory, points)


def _check_init(memory: Memory, key: Any) -> None:
    first, other = memory.init(key), memory.init(jax.random.fold_in(key, 1))
    check_parameters("memory.init(key)", first)
    law, fix = "memory.init must be a pure function of its key", "draw from the key, and from nothing else"
    check_same(law, fix, first, memory.init(key))
    shapes = [jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf)), tree) for tree in (first, other)]
    check_same("memory.init must give the same shapes for every key", "sizes are arguments of the factory", *shapes)


def _draw(memory: Memory, rng: np.random.Generator, number: int, key_dim: int, dtype: np.dtype) -> tuple[Any, Any]:
    """Parameters near the first ones, and a cue."""
    scale = SCALES[number % len(SCALES)]
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf, float) + scale * rng.normal(size=np.shape(leaf)),
        memory.init(jax.random.key(number)),
    )
    return cast(params, dtype), cast(rng.normal(size=key_dim), dtype)


def _check_recall(memory: Memory, point: tuple[Any, Any], value_dim: int) -> None:
    params, cue = point
    recalled = jax.eval_shape(memory.apply, params, cue)
    require(
        getattr(recalled, "shape", None) == (value_dim,) and recalled.dtype == cue.dtype,
        f"memory.apply must give a recall ({value_dim},) in the dtype of the parameters",
        f"it gives {getattr(recalled, 'dtype', '')}{list(getattr(recalled, 'shape', []))} for a cue {cue.shape} of"
        f" {cue.dtype}",
        "check the sizes that it was made with, or cast",
    )


def _check_derivatives(memory: Memory, params: Any, cue: Any) -> None:
    def size(params: Any) -> Any:
        return jnp.sum(memory.apply(params, cue) ** 2)

    recalled, slopes = memory.apply(params, cue), promoting(jax.grad(size), params)
    finite = all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((recalled, slopes)))
    require(
        finite,
        "memory.apply must give finite recalls with finite derivatives in the parameters",
        f"at a random memory and the cue {np.asarray(cue, float).round(3).tolist()} they are not",
        "a root at zero or a division by zero is a likely place, jnp.where around its argument the cure",
    )


def _check_features(memory: Memory, params: Any, cue: Any) -> None:
    assert memory.features is not None
    check_same(
        "memory.apply must be X phi(k) for a memory with features",
        "leave features out for a memory that is no matrix",
        memory.apply(params, cue),
        recall(params, memory.features(cue)),
        digits(cue.dtype),
    )


def _check_mapped(memory: Memory, points: list[tuple[Any, Any]]) -> None:
    params, cues = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    check_same(
        "memory.apply must be the same under jit and vmap",
        "no Python branches on values, no state",
        jax.jit(jax.vmap(memory.apply))(params, cues),
        jnp.stack([memory.apply(*point) for point in points]),
        digits(cues.dtype),
    )

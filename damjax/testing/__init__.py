"""The laws of algorithms, objectives, sets and memories, tried on anyone's implementation.

| protocol | check | what it must be |
|---|---|---|
| ``damjax.Algorithm`` | ``check_algorithm`` | two pure functions that jit, vmap, scan, resume and differentiate |
| ``damjax.objectives`` | ``check_objective`` | a loss and its gradient, of which what it declares is true |
| ``damjax.domains`` | ``check_domain`` | a convex set by its projection, and whatever else it offers |
| ``damjax.recall.Memory`` | ``check_memory`` | parameters from a key, and recalls with derivatives in them |

Each raises a ValueError that names the law, the numbers and the likely fix, and returns None where all laws hold. They
try random points, so they prove nothing and find most mistakes. Numbers are compared to half of their digits or more,
in float32, and in float64 where jax has it switched on: ``jax.config.update("jax_enable_x64", True)`` finds more.
"""

from damjax.testing.algorithms import check_algorithm as check_algorithm
from damjax.testing.domains import check_domain as check_domain
from damjax.testing.memories import check_memory as check_memory
from damjax.testing.objectives import check_objective as check_objective

__all__ = ["check_algorithm", "check_domain", "check_memory", "check_objective"]

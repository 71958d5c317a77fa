"""The best fixed memory in hindsight of every agent: what regret is measured against.

    argmin_U sum_{t <= T} sum_m w_nm f_mt(U),   U in the feasible set, one per agent n and horizon T

In closed form for quadratic losses (``moments``, ``best``), by accelerated gradient for others (``minimize``), each
with a certificate and with derivatives.
"""

from damjax.hindsight.comparators import best_beside_empty as best_beside_empty
from damjax.hindsight.comparators import best_in_hindsight as best_in_hindsight
from damjax.hindsight.comparators import best_losses as best_losses
from damjax.hindsight.comparators import best_memories as best_memories
from damjax.hindsight.comparators import checked_horizons as checked_horizons
from damjax.hindsight.comparators import moments as moments
from damjax.hindsight.convex import Comparator as Comparator
from damjax.hindsight.convex import minimize as minimize
from damjax.hindsight.quadratic import Moments as Moments
from damjax.hindsight.quadratic import best as best

__all__ = [
    "Comparator",
    "Moments",
    "best",
    "best_beside_empty",
    "best_in_hindsight",
    "best_losses",
    "best_memories",
    "checked_horizons",
    "minimize",
    "moments",
]

"""The best fixed memory in hindsight of every agent: what regret is measured against.

    argmin_U sum_{t <= T} sum_m w_nm f_mt(U),   U in the feasible set, one per agent n and horizon T

In closed form for quadratic losses (``moments``, ``best``), by accelerated gradient for others (``minimize``), each
with a certificate and with derivatives. Of memories that are not convex the best is known to nobody: ``best_fit`` is
the best of several offline fits, without a certificate.
"""

from damjax.hindsight.comparators import best_beside_empty as best_beside_empty
from damjax.hindsight.comparators import best_in_hindsight as best_in_hindsight
from damjax.hindsight.comparators import best_losses as best_losses
from damjax.hindsight.comparators import best_memories as best_memories
from damjax.hindsight.comparators import checked_horizons as checked_horizons
from damjax.hindsight.comparators import moments as moments
from damjax.hindsight.convex import Comparator as Comparator
from damjax.hindsight.convex import minimize as minimize
from damjax.hindsight.fitting import Fit as Fit
from damjax.hindsight.fitting import best_fit as best_fit
from damjax.hindsight.quadratic import Moments as Moments
from damjax.hindsight.quadratic import best as best

__all__ = [
    "Comparator",
    "Fit",
    "Moments",
    "best",
    "best_beside_empty",
    "best_fit",
    "best_in_hindsight",
    "best_losses",
    "best_memories",
    "checked_horizons",
    "minimize",
    "moments",
]

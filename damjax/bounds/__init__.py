"""Regret bounds as differentiable functions: one number per agent, in the same units as cumulative loss.

All of them assume

- losses that are convex in the memory; of memories that are not linear, nobody checks it;
- first memories X_1 that lie in the feasible set, as zero does;
- plain projected steps X - eta g, without a transformation between the gradient and the step;
- rates that do not increase with time;
- memories that absent agents keep, ``absent="keep"``.

Before the run, from constants of the problem (``constants``):

- ``ogd``: full-information OGD, [DAM] Theorem 1;
- ``c_dogd``: consensus OGD in both orders, [DAM] Theorem 2 with constants;
- ``dam_togd_printed`` and ``dam_togd_mended``: [DAM] Theorem 3 as it stands and with its proof mended;
- ``weighted_delay``: the sharper bound for DAM-TOGD, in which only the weighted mean delay counts, with the rate
  constant that minimises it, ``optimal_scale``;
- ``expected_delay``: of the mean over random delays and losses, from their means;
- ``lower``: what no algorithm can promise to stay below.

Their sums of rates are ``harmonic_number``, exact and smooth in the horizon.

For any table of issue and arrival times, delays that are random or never end included:

- ``realised_delay``: from the constants and the table;
- ``certificate``: from the gradients that a run really saw, ``observe_gradient_norms``.
"""

from damjax.bounds.expected import expected_delay as expected_delay
from damjax.bounds.limits import lower as lower
from damjax.bounds.lipschitz import Constants as Constants
from damjax.bounds.lipschitz import constants as constants
from damjax.bounds.realised import GradientNorms as GradientNorms
from damjax.bounds.realised import applied_rates as applied_rates
from damjax.bounds.realised import arrivals as arrivals
from damjax.bounds.realised import certificate as certificate
from damjax.bounds.realised import observe_gradient_norms as observe_gradient_norms
from damjax.bounds.realised import path_moves as path_moves
from damjax.bounds.realised import realised_delay as realised_delay
from damjax.bounds.static import c_dogd as c_dogd
from damjax.bounds.static import dam_togd_mended as dam_togd_mended
from damjax.bounds.static import dam_togd_printed as dam_togd_printed
from damjax.bounds.static import ogd as ogd
from damjax.bounds.static import optimal_scale as optimal_scale
from damjax.bounds.static import weighted_delay as weighted_delay
from damjax.bounds.sums import harmonic_number as harmonic_number

__all__ = [
    "Constants",
    "GradientNorms",
    "applied_rates",
    "arrivals",
    "c_dogd",
    "certificate",
    "constants",
    "dam_togd_mended",
    "dam_togd_printed",
    "expected_delay",
    "harmonic_number",
    "lower",
    "observe_gradient_norms",
    "ogd",
    "optimal_scale",
    "path_moves",
    "realised_delay",
    "weighted_delay",
]

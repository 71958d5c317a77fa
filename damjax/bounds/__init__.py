"""Regret bounds as differentiable functions: one number per agent, in the same units as cumulative loss.

All of them are about runs that start in the feasible set: the first memories must be points of it, as zero is.

Before the run, from constants of the problem (``constants``):

- ``ogd``: full-information OGD, [DAM] Theorem 1;
- ``c_dogd``: consensus OGD in both orders, [DAM] Theorem 2 with constants;
- ``dam_togd_printed`` and ``dam_togd_mended``: [DAM] Theorem 3 / Corollary 1 as it stands and with its proof mended;
- ``weighted_delay``: the sharper bound for DAM-TOGD, in which only the weighted mean delay counts, with the rate
  constant that minimises it, ``optimal_scale``.

For any table of issue and arrival times, delays that are random or never end included:

- ``realised_delay``: from the constants and the table;
- ``certificate``: from the gradients that a run really saw, ``observe_gradient_norms``.
"""

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

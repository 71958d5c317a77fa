"""The online algorithms: full-information OGD, consensus C-DOGD and DAM-TOGD.

All make one step, ``descend``: exchange -> transform -> project; they differ in the channel that brings their gradients
(``damjax.channels``). Each factory returns an ``Algorithm``, a pair of pure functions; its ``State`` holds all that the
next step needs, what is under way included. Factories may be called inside jit, vmap and grad with traced rates,
weights and delays: what can be checked is checked when it is concrete.
"""

from damjax.algorithms.consensus import c_dogd as c_dogd
from damjax.algorithms.descent import State as State
from damjax.algorithms.descent import descend as descend
from damjax.algorithms.descent import describe as describe
from damjax.algorithms.full_information import ogd as ogd
from damjax.algorithms.togd import dam_togd as dam_togd

__all__ = ["State", "c_dogd", "dam_togd", "descend", "describe", "ogd"]

"""damjax: distributed associative memory in JAX.

Agents on a network each keep a memory, a matrix that maps cues to responses, and learn it online by gradients that come
back late along routing trees (DAM-TOGD). The way through the library is one way:

    graph + weights -> routing -> delay table -> algorithm -> simulate -> trace -> regret -> figure
"""

import importlib
from typing import Any

from damjax import _contractions
from damjax import bounds as bounds
from damjax import diagnostics as diagnostics
from damjax import domains as domains
from damjax import features as features
from damjax import graphs as graphs
from damjax import hindsight as hindsight
from damjax import objectives as objectives
from damjax import particles as particles
from damjax import regret as regret
from damjax import routing as routing
from damjax import schedules as schedules
from damjax import streams as streams
from damjax import weights as weights
from damjax._store import StoreError as StoreError
from damjax._types import Algorithm as Algorithm
from damjax._types import Associations as Associations
from damjax._types import Info as Info
from damjax._version import __version__ as __version__
from damjax.algorithms import c_dogd as c_dogd
from damjax.algorithms import dam_togd as dam_togd
from damjax.algorithms import ogd as ogd
from damjax.batching import vmap_last as vmap_last
from damjax.simulate import Trace as Trace
from damjax.simulate import resume as resume
from damjax.simulate import simulate as simulate
from damjax.sweep import open_sweep as open_sweep
from damjax.sweep import rerun as rerun
from damjax.sweep import sweep as sweep
from damjax.sweep import use_every_core as use_every_core

_contractions.warn_of_wrong_sums()


def __getattr__(name: str) -> Any:
    """``damjax.plotting`` when it is first used: matplotlib takes a second to load."""
    if name == "plotting":
        return importlib.import_module("damjax.plotting")
    raise AttributeError(f"module 'damjax' has no attribute {name!r}")

"""damjax: distributed associative memory in JAX.

Agents on a network each keep a memory, a matrix that maps cues to responses, and learn it online by gradients that come
back late along routing trees (DAM-TOGD). The way through the library is one way:

    graph + weights -> routing -> delay table -> algorithm -> simulate -> trace -> regret -> figure
"""

import importlib
from typing import Any

from damjax import _compiler
from damjax import algorithms as algorithms
from damjax import bounds as bounds
from damjax import channels as channels
from damjax import diagnostics as diagnostics
from damjax import domains as domains
from damjax import features as features
from damjax import graphs as graphs
from damjax import hindsight as hindsight
from damjax import objectives as objectives
from damjax import particles as particles
from damjax import recall as recall
from damjax import regret as regret
from damjax import routing as routing
from damjax import schedules as schedules
from damjax import streams as streams
from damjax import testing as testing
from damjax import weights as weights
from damjax._version import __version__ as __version__
from damjax.algorithms import c_dogd as c_dogd
from damjax.algorithms import dam_togd as dam_togd
from damjax.algorithms import ogd as ogd
from damjax.simulation import Trace as Trace
from damjax.simulation import resume as resume
from damjax.simulation import simulate as simulate
from damjax.sweeps.store import StoreError as StoreError
from damjax.sweeps.sweep import open_sweep as open_sweep
from damjax.sweeps.sweep import rerun as rerun
from damjax.sweeps.sweep import sweep as sweep
from damjax.sweeps.sweep import use_every_core as use_every_core
from damjax.types import Algorithm as Algorithm
from damjax.types import Associations as Associations
from damjax.types import Info as Info
from damjax.vmapping import vmap_last as vmap_last

__all__ = [
    "Algorithm",
    "Associations",
    "Info",
    "StoreError",
    "Trace",
    "__version__",
    "algorithms",
    "bounds",
    "c_dogd",
    "channels",
    "dam_togd",
    "diagnostics",
    "domains",
    "features",
    "graphs",
    "hindsight",
    "objectives",
    "ogd",
    "open_sweep",
    "particles",
    "recall",
    "regret",
    "rerun",
    "resume",
    "routing",
    "schedules",
    "simulate",
    "streams",
    "sweep",
    "testing",
    "use_every_core",
    "vmap_last",
    "weights",
]

_compiler.warn_of_wrong_sums()


def __getattr__(name: str) -> Any:
    """``damjax.plotting`` when it is first used, and not in ``__all__``: matplotlib takes a second to load."""
    if name == "plotting":
        return importlib.import_module("damjax.plotting")
    raise AttributeError(f"module 'damjax' has no attribute {name!r}")

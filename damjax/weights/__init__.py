"""Interest weights: row n says how much agent n cares about the associations of each agent.

As a matrix (N, N), or, for networks in which every agent wants few of the others, as ``SparseWeights`` of K entries per
agent, with which routing, algorithms and regret cost time and memory in proportion to N K. Of a network that changes
they are ``EpochWeights``, one table per epoch.
"""

from damjax.weights.draw import dirichlet as dirichlet
from damjax.weights.draw import sparse_dirichlet as sparse_dirichlet
from damjax.weights.edges import SparseWeights as SparseWeights
from damjax.weights.edges import dense as dense
from damjax.weights.edges import sparse as sparse
from damjax.weights.epochs import EpochWeights as EpochWeights
from damjax.weights.epochs import over_epochs as over_epochs

__all__ = [
    "EpochWeights",
    "SparseWeights",
    "dense",
    "dirichlet",
    "over_epochs",
    "sparse",
    "sparse_dirichlet",
]

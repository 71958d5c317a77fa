"""Associative memories under cross-entropy: how a matrix learns which class goes with which token.

Gradient descent on a memory W with scores S = E W' U' is a system of N interacting particles, one per token, that feel
each other through the Gram matrices of the embeddings: exactly, at any step size, in any dimension.

    embeddings -> Problem -> memory (scores, W, factors of W) -> descent or flow -> evolve -> trajectory -> numbers

- ``Problem``, ``from_embeddings``, ``one_hot``, ``two_tokens``; ``embeddings``: Gram matrices and frequencies;
  ``sampling``: minibatches and label noise, as problems.
- ``step``, ``simulate``: the particle system. ``descent``, ``flow`` with ``evolve``: any memory (``particle_system``,
  ``full``, ``low_rank``, ``block_diagonal``, layer normalisation), any optax transformation, any source of data.
- ``loss``, ``margins``, ``error_rate``, ``recalled``, ``log_odds``: what is measured on scores, beside the ``labels``
  of the tokens; ``sharpness`` of the loss; ``trajectories``: spikes and regimes of a run.
- ``binary``, ``capacity``: closed forms for two classes.
- ``bigrams``, ``transformer``: the same quantities in a small two-layer Transformer.

Source: Cabannes, Simsek and Bietti, "Learning Associative Memories with Gradient Descent", ICML 2024 ([LAM]).
"""

from damjax.particles import bigrams as bigrams
from damjax.particles import binary as binary
from damjax.particles import capacity as capacity
from damjax.particles import embeddings as embeddings
from damjax.particles import sampling as sampling
from damjax.particles import trajectories as trajectories
from damjax.particles import transformer as transformer
from damjax.particles.curvature import sharpness as sharpness
from damjax.particles.dynamics import Dynamics as Dynamics
from damjax.particles.dynamics import State as State
from damjax.particles.dynamics import descent as descent
from damjax.particles.dynamics import evolve as evolve
from damjax.particles.dynamics import flow as flow
from damjax.particles.dynamics import simulate as simulate
from damjax.particles.dynamics import step as step
from damjax.particles.embeddings import two_tokens as two_tokens
from damjax.particles.memories import Factors as Factors
from damjax.particles.memories import Memory as Memory
from damjax.particles.memories import block_diagonal as block_diagonal
from damjax.particles.memories import full as full
from damjax.particles.memories import layer_norm as layer_norm
from damjax.particles.memories import low_rank as low_rank
from damjax.particles.memories import normalized_scores as normalized_scores
from damjax.particles.memories import parameterized as parameterized
from damjax.particles.memories import particle_system as particle_system
from damjax.particles.problem import Problem as Problem
from damjax.particles.problem import from_embeddings as from_embeddings
from damjax.particles.problem import labels as labels
from damjax.particles.problem import one_hot as one_hot
from damjax.particles.quantities import error_rate as error_rate
from damjax.particles.quantities import log_odds as log_odds
from damjax.particles.quantities import loss as loss
from damjax.particles.quantities import margins as margins
from damjax.particles.quantities import recalled as recalled

__all__ = [
    "Dynamics",
    "Factors",
    "Memory",
    "Problem",
    "State",
    "bigrams",
    "binary",
    "block_diagonal",
    "capacity",
    "descent",
    "embeddings",
    "error_rate",
    "evolve",
    "flow",
    "from_embeddings",
    "full",
    "labels",
    "layer_norm",
    "log_odds",
    "loss",
    "low_rank",
    "margins",
    "normalized_scores",
    "one_hot",
    "parameterized",
    "particle_system",
    "recalled",
    "sampling",
    "sharpness",
    "simulate",
    "step",
    "trajectories",
    "transformer",
    "two_tokens",
]

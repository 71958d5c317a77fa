"""Memories of any shape: what an agent keeps, as two pure functions.

| factory | recall | learned |
|---|---|---|
| ``linear`` | X phi(k) | X: convex, with regret and bounds |
| ``multi_head`` | X_h phi_h(k), head beside head | all X_h: likewise |
| ``mlp`` | W2 act(W1 k + b) | all of it |
| ``slots`` | V' softmax(beta K k) | keys K and values V |
| ``stack`` | one memory fed with the recall of the one before | all of it, or ``layer_by_layer`` |
| ``window_attention`` | attention over the associations of the last steps | nothing: ``share_associations`` fills it |

Every one is a ``Memory``, whose ``objective`` goes wherever an objective goes, and one of your own is
``Memory(init, apply)``. What is no matrix is not convex: no theorem bounds its regret, and
``damjax.regret.static_regret`` refuses it. ``damjax.regret.regret_against`` measures it against another run on the same
associations, such as full-information OGD, and ``damjax.hindsight.best_fit`` against the best of several offline fits.
"""

from damjax.recall.memories.caches import Window as Window
from damjax.recall.memories.caches import share_associations as share_associations
from damjax.recall.memories.caches import slots as slots
from damjax.recall.memories.caches import window_attention as window_attention
from damjax.recall.memories.layers import layer_by_layer as layer_by_layer
from damjax.recall.memories.layers import mlp as mlp
from damjax.recall.memories.layers import stack as stack
from damjax.recall.memories.matrices import linear as linear
from damjax.recall.memories.matrices import multi_head as multi_head
from damjax.recall.memories.memory import Memory as Memory

__all__ = [
    "Memory",
    "Window",
    "layer_by_layer",
    "linear",
    "mlp",
    "multi_head",
    "share_associations",
    "slots",
    "stack",
    "window_attention",
]

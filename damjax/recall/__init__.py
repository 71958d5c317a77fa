"""Associative recall: memories of any shape, tasks that people know, and measures of recall.

    task -> associations -> algorithm -> simulate -> answers -> measures

- ``memories``: linear, multi-head, perceptron, slots, stacks, window attention.
- ``mqar``, ``continuous_mqar``: multi-query associative recall, as tokens and as random unit vectors.
- ``bigram_recall``, ``output_memory``: the Transformer of ``damjax.particles`` at test time.
- ``ask``, ``observe_recalls``, ``judge``, ``recall_measures``: accuracy, recall@k, MRR and NMSE, of own
  associations and of others'.
"""

from damjax.recall import memories as memories
from damjax.recall.measuring import Answers as Answers
from damjax.recall.measuring import ask as ask
from damjax.recall.measuring import judge as judge
from damjax.recall.measuring import observe_recalls as observe_recalls
from damjax.recall.measuring import recall_measures as recall_measures
from damjax.recall.memories import Memory as Memory
from damjax.recall.task import Questions as Questions
from damjax.recall.task import Task as Task
from damjax.recall.tokens import Sequences as Sequences
from damjax.recall.tokens import mqar as mqar
from damjax.recall.transformers import bigram_recall as bigram_recall
from damjax.recall.transformers import output_memory as output_memory
from damjax.recall.vectors import continuous_mqar as continuous_mqar
from damjax.recall.vectors import embed_sequences as embed_sequences
from damjax.recall.vectors import unit_vectors as unit_vectors

__all__ = [
    "Answers",
    "Memory",
    "Questions",
    "Sequences",
    "Task",
    "ask",
    "bigram_recall",
    "continuous_mqar",
    "embed_sequences",
    "judge",
    "memories",
    "mqar",
    "observe_recalls",
    "output_memory",
    "recall_measures",
    "unit_vectors",
]

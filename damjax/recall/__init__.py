"""Associative recall: memories of any shape, tasks that people know, and measures of recall.

    task -> associations -> algorithm -> simulate -> answers -> measures

- ``memories``: linear, multi-head, perceptron, slots, stacks, window attention.
- ``mqar``, ``continuous_mqar``: multi-query associative recall, as tokens and as random unit vectors.
- ``documents``, ``digits``: real text and images, from what installed packages hold; ``from_texts``, ``from_arrays``:
  your own.
- ``bigram_recall``, ``output_memory``: the Transformer of ``damjax.particles`` at test time.
- ``ask``, ``observe_recalls``, ``judge``, ``recall_measures``: accuracy, recall@k, MRR and NMSE, of own
  associations and of others'.
"""

from damjax.recall import memories as memories
from damjax.recall.embeddings import hashed_ngrams as hashed_ngrams
from damjax.recall.embeddings import static_embeddings as static_embeddings
from damjax.recall.images import digits as digits
from damjax.recall.items import from_arrays as from_arrays
from damjax.recall.libraries import installed_libraries as installed_libraries
from damjax.recall.measuring import Answers as Answers
from damjax.recall.measuring import ask as ask
from damjax.recall.measuring import judge as judge
from damjax.recall.measuring import observe_recalls as observe_recalls
from damjax.recall.measuring import recall_measures as recall_measures
from damjax.recall.memories import Memory as Memory
from damjax.recall.task import Questions as Questions
from damjax.recall.task import Task as Task
from damjax.recall.texts import Corpus as Corpus
from damjax.recall.texts import documents as documents
from damjax.recall.texts import from_texts as from_texts
from damjax.recall.texts import read_text as read_text
from damjax.recall.texts import split_evenly as split_evenly
from damjax.recall.tokens import Sequences as Sequences
from damjax.recall.tokens import mqar as mqar
from damjax.recall.transformers import bigram_recall as bigram_recall
from damjax.recall.transformers import output_memory as output_memory
from damjax.recall.vectors import continuous_mqar as continuous_mqar
from damjax.recall.vectors import embed_sequences as embed_sequences
from damjax.recall.vectors import unit_vectors as unit_vectors

__all__ = [
    "Answers",
    "Corpus",
    "Memory",
    "Questions",
    "Sequences",
    "Task",
    "ask",
    "bigram_recall",
    "continuous_mqar",
    "digits",
    "documents",
    "embed_sequences",
    "from_arrays",
    "from_texts",
    "hashed_ngrams",
    "installed_libraries",
    "judge",
    "memories",
    "mqar",
    "observe_recalls",
    "output_memory",
    "read_text",
    "recall_measures",
    "split_evenly",
    "static_embeddings",
    "unit_vectors",
]

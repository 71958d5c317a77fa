"""Recall of documents: texts that agents hold, who is interested in whose, and finding a body by its title."""

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from damjax._checks import (
    brief,
    check_array,
    check_count,
    check_function,
    check_instance,
    check_row_stochastic,
    check_square,
    float_dtype,
)
from damjax.recall.embeddings import Embedding, hashed_ngrams
from damjax.recall.items import from_arrays
from damjax.recall.task import Task
from damjax.types import ArrayLike

__all__ = ["Corpus", "Document", "documents", "first_sentence", "from_texts", "own_half", "read_text", "split_evenly"]

Document = tuple[str, str]  # title, body

# Where a sentence ends and the next does not go on in small letters, as after "e.g.".
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^a-z\s])")
PARAGRAPH_END = re.compile(r"\n\s*\n")


class Corpus(NamedTuple):
    """Texts, and which agent holds them.

    Attributes:
        names: of the agents, N of them.
        titles: of the documents, Q of them.
        bodies: of the documents, Q of them.
        holders: the agent that holds each document, (Q,).
        interests: interest weights, (N, N) float64, row-stochastic: row n says how much agent n wants to know of what
            each agent holds.
    """

    names: tuple[str, ...]
    titles: tuple[str, ...]
    bodies: tuple[str, ...]
    holders: Int[np.ndarray, "Q"]
    interests: Float[np.ndarray, "N N"]


def documents(
    key: Key[Array, ""],
    corpus: Corpus,
    *,
    num_steps: int,
    key_dim: int = 256,
    value_dim: int = 256,
    embedding: Embedding = hashed_ngrams,
    dtype: jax.typing.DTypeLike | None = None,
) -> Task:
    """Retrieval of documents: agents that learn the bodies to the titles they hold, and are asked for everyone's.

    A key is the embedding of a title, a value that of a body, and all bodies are candidates; see ``from_arrays`` for
    what an agent sees and is asked. Titles are embedded together, and so are bodies.

    Embedding runs on the host and takes some two seconds per thousand documents. Under ``jax.jit`` and ``jax.vmap``
    over keys it is done once; a program that is compiled again and again had better embed beforehand, and call
    ``from_arrays``.

    Args:
        key: typed PRNG key, of the order in which the agents see their documents.
        corpus: from ``installed_libraries`` or ``from_texts``.
        num_steps: T.
        key_dim: dk.
        value_dim: dv.
        embedding: ``hashed_ngrams``, ``static_embeddings``, or any function of a dimension that gives an embedder.
        dtype: of the task; jax's default float otherwise.

    Returns:
        A Task with associations (T, N, ..), questions (Q, N, ..) and candidates (Q, dv), in the order of the
        documents in the corpus.

    Raises:
        ValueError: what is no corpus, a text that cannot be embedded, an embedding of another shape.

    Example:
        >>> corpus = from_texts({"ann": [("Trees", "Trees have no cycles.")], "bob": [("Rings", "Rings have one.")]})
        >>> task = documents(jax.random.key(0), corpus, num_steps=5, key_dim=32, value_dim=64)
        >>> task.associations.keys.shape, task.questions.keys.shape, task.candidates.shape
        ((5, 2, 32), (2, 2, 32), (2, 64))
    """
    check_instance("corpus", corpus, Corpus, "installed_libraries() collects one, from_texts makes one of your own")
    check_count("key_dim", key_dim)
    check_count("value_dim", value_dim)
    check_function("embedding", embedding, "dim", "damjax.recall.hashed_ngrams is one")
    return from_arrays(
        key,
        embedding(key_dim)(corpus.titles),
        embedding(value_dim)(corpus.bodies),
        corpus.holders,
        num_agents=len(corpus.names),
        num_steps=num_steps,
        dtype=float_dtype(dtype),
    )


def from_texts(texts: Mapping[str, Sequence[Document]], *, interests: Float[ArrayLike, "N N"] | None = None) -> Corpus:
    """A corpus of the user's own texts.

    Args:
        texts: by the name of an agent, the documents that it holds, (title, body) each.
        interests: interest weights, (N, N), row-stochastic, in the order of the agents. Without, everyone gives itself
            a half and the others equal shares of the rest.

    Returns:
        A Corpus.

    Raises:
        ValueError: an agent without documents, a document that is no pair of texts, or has an empty one, two of the
            same body, interests that are not row-stochastic.

    Example:
        >>> corpus = from_texts({"ann": [("Trees", "Trees have no cycles."), ("Rings", "Rings have one.")]})
        >>> corpus.names, corpus.titles, corpus.holders.tolist(), corpus.interests.tolist()
        (('ann',), ('Trees', 'Rings'), [0, 0], [[1.0]])
    """
    if not isinstance(texts, Mapping) or not texts:
        raise ValueError(
            f"texts must be the documents of every agent, as {{name: [(title, body), ...]}}, but it is {brief(texts)}"
        )
    holder_of: dict[str, str] = {}
    for name, pairs in texts.items():
        if isinstance(pairs, str) or not len(pairs):
            raise ValueError(
                f"texts must hold (title, body) pairs of every agent, but of {name!r} it is {brief(pairs)}"
            )
        for document in pairs:
            _check_document(name, document)
            if (body := document[1]) in holder_of:
                raise ValueError(
                    f"texts must have bodies that differ, or a recall cannot be told right, but {holder_of[body]!r} and"
                    f" {name!r} both hold {brief(body)!r}; leave one out"
                )
            holder_of[body] = name
    rows = [(agent, *document) for agent, pairs in enumerate(texts.values()) for document in pairs]
    holders, titles, bodies = zip(*rows, strict=True)
    if interests is None:
        interests = own_half(np.ones((len(texts), len(texts))))
    check_array("interests", interests, "N N")
    interests = np.asarray(interests, float)
    check_square("interests", interests.shape, len(texts))
    check_row_stochastic("interests", interests)
    return Corpus(tuple(map(str, texts)), titles, bodies, np.array(holders), interests)


def own_half(amounts: Float[np.ndarray, "N N"]) -> Float[np.ndarray, "N N"]:
    """Interest weights: a half for oneself, the rest in proportion to the amounts; all for oneself where they are zero.

    Example:
        >>> own_half(np.array([[9.0, 1.0, 3.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])).tolist()
        [[0.5, 0.125, 0.375], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]
    """
    others = amounts * (1 - np.eye(len(amounts)))
    totals = others.sum(axis=1, keepdims=True)
    shares = 0.5 * others / np.where(totals > 0, totals, 1)
    return shares + np.diag(1 - shares.sum(axis=1))


def read_text(path: str | PathLike[str]) -> list[Document]:
    r"""The documents of a plain text file: of each paragraph the first sentence is the title, the rest the body.

    Paragraphs are parted by empty lines. Those of a single sentence are left out, since there is nothing to recall, and
    so are those whose rest stands in one before.

    Args:
        path: of a file in UTF-8.

    Returns:
        (title, body) of every paragraph, in order.

    Raises:
        ValueError: a file that cannot be read, or is not in UTF-8; no paragraph of two sentences or more.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "notes.txt")
        ...     _ = path.write_text("Rings have cycles. Trees have none.\n\nA heading\n\nOne. Two. Three.")
        ...     read_text(path)
        [('Rings have cycles.', 'Trees have none.'), ('One.', 'Two. Three.')]
    """
    if not isinstance(path, str | PathLike):
        raise ValueError(f"path must name a text file, but it is {brief(path)}")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"path must name a readable text in UTF-8, but reading {str(path)!r} gave: {error}") from error
    # By their bodies: a later paragraph of the same body finds the place taken.
    titles: dict[str, str] = {}
    for paragraph in PARAGRAPH_END.split(text):
        title, body = first_sentence(paragraph)
        if body:
            titles.setdefault(body, title)
    if not titles:
        raise ValueError(
            f"path must name a text of paragraphs of two sentences or more, parted by empty lines, but {str(path)!r}"
            f" has none"
        )
    return [(title, body) for body, title in titles.items()]


def split_evenly(documents: Sequence[Document], num_agents: int) -> dict[str, list[Document]]:
    """One text shared out: each agent holds a stretch of it, of about equal numbers of documents.

    Args:
        documents: (title, body) each, such as ``read_text`` gives.
        num_agents: N, at most as many as there are documents.

    Returns:
        The documents by name of an agent, as ``from_texts`` takes them.

    Raises:
        ValueError: fewer documents than agents.

    Example:
        >>> {name: len(pairs) for name, pairs in split_evenly([("title", "body")] * 5, 2).items()}
        {'agent 0': 3, 'agent 1': 2}
    """
    check_count("num_agents", num_agents)
    if isinstance(documents, str) or not isinstance(documents, Sequence) or len(documents) < num_agents:
        raise ValueError(
            f"documents must be a list of (title, body) pairs, as many as the {num_agents} agents or more, but it is"
            f" {brief(documents)}; take fewer agents, or a longer text"
        )
    stretches = np.array_split(np.arange(len(documents)), num_agents)
    return {f"agent {agent}": [documents[row] for row in rows] for agent, rows in enumerate(stretches)}


def first_sentence(text: str) -> Document:
    r"""The first sentence of a text, which ends with its paragraph, and the rest; each on one line.

    Example:
        >>> first_sentence("Gather what arrives, e.g. gradients.  Then\nstep. Repeat.")
        ('Gather what arrives, e.g. gradients.', 'Then step. Repeat.')
    """
    paragraph, *others = PARAGRAPH_END.split(text.strip(), maxsplit=1)
    sentence, *more = SENTENCE_END.split(_one_line(paragraph), maxsplit=1)
    return sentence, _one_line(" ".join(more + others))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _check_document(name: str, document: object) -> None:
    if not isinstance(document, tuple | list) or len(document) != 2 or not all(isinstance(t, str) for t in document):
        raise ValueError(f"texts must hold (title, body) pairs, but {name!r} holds {brief(document)}")
    if not all(text.strip() for text in document):
        raise ValueError(
            f"texts must have titles and bodies that are not empty, but {name!r} holds {brief(document)}; leave it out"
        )

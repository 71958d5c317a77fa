"""Texts as unit vectors: hashed character n-grams, and the vectors of a small static model."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Float

from damjax._checks import brief, check_count, missing_extra

__all__ = ["Embedder", "Embedding", "hashed_ngrams", "static_embeddings"]

# Texts, Q of them, as rows (Q, dim) of unit norm; and what makes such a function for a dimension.
Embedder = Callable[[Sequence[str]], Float[np.ndarray, "Q dim"]]
Embedding = Callable[[int], Embedder]

STATIC_DIMS = (64, 128, 256)  # that the model was trained to be cut to, of those that its package ships


def hashed_ngrams(dim: int = 256, *, sizes: tuple[int, ...] = (3, 4, 5), idf: bool = True) -> Embedder:
    """Texts as hashed counts of their character n-grams: no training, nothing to download.

    With n_g the number of times that the n-gram g stands in a text, h_g in 0 .. dim - 1 its place and s_g = 1 or -1 its
    sign, both by hashing,

        v_i = sum over g with h_g = i of s_g (1 + log n_g) idf_g,   divided by ||v||,   idf_g = 1 + log((1+Q) / (1+Q_g))

    where Q_g of the Q texts contain g. Texts are taken in lower case, any white space as one space, with a space before
    and after. Vectors are the same in every process.

    Args:
        dim: of the vectors.
        sizes: n, of the n-grams.
        idf: whether n-grams that many texts share weigh less. It is fitted on the texts of one call, so that the vector
            of a text depends on those beside it; without, idf_g = 1.

    Returns:
        A function of Q texts that gives their vectors, (Q, dim) float64. It raises ValueError where a text is blank, or
        its n-grams cancel.

    Raises:
        ValueError: a dim or sizes that are no positive integers.

    Example:
        >>> vectors = hashed_ngrams(512)(["a spanning tree", "the spanning trees", "a quadratic loss"])
        >>> similarities = vectors @ vectors.T
        >>> vectors.shape, bool(similarities[0, 1] > 0.4 > 0.2 > similarities[0, 2])
        ((3, 512), True)

    Source: feature hashing with signs, Weinberger et al. 2009 (arXiv 0902.2206); the weights as in scikit-learn's
    TfidfVectorizer with ``sublinear_tf``.
    """
    check_count("dim", dim)
    if not isinstance(sizes, tuple) or not sizes:
        raise ValueError(f"sizes must be a tuple of positive integers, but it is {brief(sizes)}")
    for size in sizes:
        check_count("sizes", size)

    def embed(texts: Sequence[str]) -> Float[np.ndarray, "Q dim"]:
        counts = [_ngrams(text, sizes) for text in _checked_texts(texts)]
        num_texts = Counter(gram for count in counts for gram in count)
        hashes = {gram: _hash(gram) for gram in num_texts}
        rarity = {gram: 1 + np.log((1 + len(counts)) / (1 + number)) for gram, number in num_texts.items()}
        vectors = np.zeros((len(counts), dim))
        for vector, count in zip(vectors, counts, strict=True):
            code = np.array([hashes[gram] for gram in count], np.uint64)
            weight = 1 + np.log(np.array(list(count.values()), float))
            if idf:
                weight *= [rarity[gram] for gram in count]
            sign = np.where(code >> np.uint64(63), -1.0, 1.0)
            vector += np.bincount((code % np.uint64(dim)).astype(int), sign * weight, dim)
        return _unit(vectors, texts, f"{min(sizes)}-gram")

    return embed


def static_embeddings(dim: int = 256) -> Embedder:
    """Texts as means of the token vectors of a small language model, those that the package wordllama ships.

    Nothing is downloaded. Texts of like meaning are near each other even if they share no words, where n-grams see
    spelling alone.

    Args:
        dim: 64, 128 or 256: the model was trained so that the first entries of a vector serve alone.

    Returns:
        A function of Q texts that gives their vectors, (Q, dim) float64. It raises ValueError where a text is blank.

    Raises:
        ValueError: a dim that the model does not have.
        ImportError: the extra ``recall`` is not installed.

    Example:
        >>> vectors = static_embeddings(64)(["the car is fast", "a quick automobile", "boil the potatoes"])
        >>> similarities = vectors @ vectors.T
        >>> vectors.shape, bool(similarities[0, 1] > 0.5 > similarities[0, 2])
        ((3, 64), True)

    Source: L. Miller, WordLlama, github.com/dleemiller/WordLlama, MIT licence.
    """
    check_count("dim", dim)
    if dim not in STATIC_DIMS:
        raise ValueError(f"dim must be one of {', '.join(map(str, STATIC_DIMS))}, but it is {brief(dim)}")
    model = _wordllama(dim)

    def embed(texts: Sequence[str]) -> Float[np.ndarray, "Q dim"]:
        return _unit(np.asarray(model.embed(list(_checked_texts(texts))), float), texts, "token")

    return embed


def _wordllama(dim: int):
    # Its import sets up the root logger of whoever imports it, unless that has a handler.
    quiet = logging.NullHandler()
    logging.getLogger().addHandler(quiet)
    try:
        import wordllama
    except ImportError as error:
        raise missing_extra("static embeddings need wordllama", "recall") from error
    finally:
        logging.getLogger().removeHandler(quiet)
    # By itself the package looks for the tokenizer that it ships in another folder, and downloads it again.
    folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(trunc_dim=dim, cache_dir=folder, disable_download=True)


def _checked_texts(texts: Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"texts must be a sequence of strings, but it is {brief(texts)}; [text] holds one")
    if blank := [row for row, text in enumerate(texts) if not text.strip()]:
        raise ValueError(f"texts must hold words, but text {blank[0]} is blank; leave it out")
    return texts


def _ngrams(text: str, sizes: tuple[int, ...]) -> Counter[str]:
    padded = f" {' '.join(text.lower().split())} "
    return Counter(padded[start : start + size] for size in sizes for start in range(len(padded) - size + 1))


def _hash(gram: str) -> int:
    return int.from_bytes(digest(gram), "little")


def digest(text: str) -> bytes:
    """64 bits, the same in every process: ``hash`` of a string is salted, and a checksum's bits are not independent."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _unit(vectors: np.ndarray, texts: Sequence[str], part: str) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if np.any(norms == 0):
        text = int(np.argmin(norms))
        raise ValueError(
            f"texts must each have a vector, but text {text}, {brief(texts[text])!r}, has none: it holds no {part}, or"
            f" what it holds cancels; leave it out, or take a larger dim"
        )
    return vectors / norms

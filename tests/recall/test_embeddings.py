"""Texts as vectors: against scikit-learn's weights of n-grams, and a model that must not ask the network."""

import logging
import re
import socket
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from damjax.recall.embeddings import hashed_ngrams, static_embeddings

TEXTS = (
    "The memory of an agent is a matrix.",
    "A matrix is   the memory\nof an agent!",
    "Steiner trees carry gradients, gradients and gradients.",
    "Ünïcode ❤ too",
)


@pytest.mark.parametrize(("sizes", "idf"), [((3, 4, 5), True), ((3, 4, 5), False), ((2,), True)])
def test_without_collisions_similarities_are_those_of_counted_ngrams(sizes, idf):
    """In a million places the few hundred n-grams have one each."""
    padded = [f" {' '.join(text.split())} " for text in TEXTS]
    counted = TfidfVectorizer(
        analyzer="char", ngram_range=(min(sizes), max(sizes)), sublinear_tf=True, use_idf=idf
    ).fit_transform(padded)
    vectors = hashed_ngrams(2**20, sizes=sizes, idf=idf)(TEXTS)
    np.testing.assert_allclose(vectors @ vectors.T, (counted @ counted.T).toarray(), rtol=1e-10)


def test_hashing_with_signs_is_unbiased():
    """The error of a similarity in 64 places has mean zero; it would be about 0.3 if all signs were the same."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh "), 60)) for _ in range(120)]
    few, many = (hashed_ngrams(dim, idf=False)(texts) for dim in (64, 2**16))
    errors = (few @ few.T - many @ many.T)[np.triu_indices(120, 1)]
    assert abs(errors.mean()) < 0.01
    assert 0.08 < errors.std() < 0.16  # 1 / sqrt(64) = 0.125


def test_vectors_are_the_same_everywhere():
    """Numbers that another process computed, under another salt of ``hash``; no n-gram stands twice in the word."""
    vector = hashed_ngrams(8, idf=False)(["Damjax"])[0]
    np.testing.assert_allclose(vector, np.array([0, 0, 0, 0, 2, -1, -1, 1]) / 7**0.5, rtol=1e-12)


def test_idf_is_fitted_on_the_texts_of_a_call_and_rows_follow_them():
    embed = hashed_ngrams(2**12)
    rows = embed(TEXTS)
    np.testing.assert_allclose(embed(TEXTS[::-1]), rows[::-1], rtol=1e-12)
    assert not np.allclose(embed(TEXTS[:1]), rows[:1])
    plain = hashed_ngrams(2**12, idf=False)
    np.testing.assert_array_equal(plain(TEXTS[:1]), plain(TEXTS)[:1])


@pytest.mark.parametrize("embed", [hashed_ngrams(32), static_embeddings(64)])
def test_rows_are_unit_vectors_of_texts(untyped, embed):
    rows = embed(TEXTS)
    assert rows.dtype == np.float64
    assert rows.shape == (4, 32 if embed.__qualname__.startswith("hashed") else 64)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-12)
    for texts, message in (
        (("some words", " \n"), "texts must hold words, but text 1 is blank; leave it out"),
        ("some words", "a sequence of strings, but it is some words"),
        (("some words", 3), "a sequence of strings"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            embed(texts)


def test_meaning_without_a_shared_word():
    texts = ("the film was wonderful", "a marvellous movie", "interest rates rose again")
    static, ngrams = (embed(texts) @ embed(texts).T for embed in (static_embeddings(256), hashed_ngrams(2**12)))
    assert static[0, 1] > 0.4 > 0.2 > static[0, 2]
    assert ngrams[0, 1] < 0.1


def test_a_short_static_vector_is_the_start_of_a_long_one():
    long, short = static_embeddings(256)(TEXTS)[:, :64], static_embeddings(64)(TEXTS)
    np.testing.assert_allclose(short, long / np.linalg.norm(long, axis=1, keepdims=True), rtol=1e-5)  # float32 model


def test_static_embeddings_need_no_network_and_leave_the_root_logger(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in [name for name in sys.modules if name.partition(".")[0] == "wordllama"]:
        monkeypatch.delitem(sys.modules, name)
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])  # as outside of pytest
    assert static_embeddings(128)(["a word"]).shape == (1, 128)
    assert root.handlers == []
    assert root.level == level


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(ImportError, match=r"pip install 'damjax\[recall\]'"):
        static_embeddings()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: hashed_ngrams(0), "dim must be a positive integer, but it is 0"),
        (lambda: hashed_ngrams(8, sizes=()), "sizes must be a tuple of positive integers"),
        (lambda: hashed_ngrams(8, sizes=(3, 0)), "sizes must be a positive integer, but it is 0"),
        (lambda: static_embeddings(100), "dim must be one of 64, 128, 256, but it is 100"),
    ],
)
def test_bad_arguments(untyped, build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def test_ngrams_that_cancel_are_refused():
    """Of the two n-grams of this text, the one place has the difference."""
    with pytest.raises(ValueError, match="what it holds cancels; leave it out, or take a larger dim"):
        hashed_ngrams(1, sizes=(3,), idf=False)(["ac"])

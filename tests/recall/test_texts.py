"""Documents as a recall task, and texts of the user's own."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damjax.recall.embeddings import hashed_ngrams, static_embeddings
from damjax.recall.measuring import ask, recall_measures
from damjax.recall.task import check_task
from damjax.recall.texts import documents, first_sentence, from_texts, read_text, split_evenly

TEXTS = {
    "gardener": [("On roses", "Roses want sun and much water."), ("On ferns", "Ferns grow in the shade of trees.")],
    "baker": [("Bread", "Flour, water, salt and time."), ("Rolls", "Bread in small."), ("Salt", "Two in a hundred.")],
}


def key(seed=0):
    return jax.random.key(seed)


def test_keys_are_titles_and_values_bodies_of_the_agent_that_holds_them():
    corpus = from_texts(TEXTS)
    task = documents(key(), corpus, num_steps=6, key_dim=64, value_dim=32)
    check_task(task)
    titles, bodies = hashed_ngrams(64)(corpus.titles), hashed_ngrams(32)(corpus.bodies)
    np.testing.assert_allclose(task.candidates, bodies, rtol=1e-12)
    for agent, own in enumerate(([0, 1], [2, 3, 4])):
        np.testing.assert_allclose(task.questions.keys[:, agent], titles, rtol=1e-12)
        np.testing.assert_array_equal(task.questions.agents[:, agent], [0, 0, 1, 1, 1])
        np.testing.assert_array_equal(task.questions.answers[:, agent], range(5))
        rows = [
            np.flatnonzero(np.isclose(titles, seen, rtol=1e-12, atol=0).all(axis=1)).tolist()
            for seen in np.asarray(task.associations.keys[:, agent])
        ]
        assert sorted(rows) == sorted([row] for row in own * (6 // len(own)))
        np.testing.assert_allclose(task.associations.values[:, agent], bodies[np.ravel(rows)], rtol=1e-12)


@pytest.mark.parametrize("embedding", [hashed_ngrams, functools.partial(hashed_ngrams, sizes=(4,)), static_embeddings])
def test_who_solves_for_its_own_finds_its_own(embedding):
    """The least-squares memory of each agent, as many entries of a key as it takes: all of its own, few of others'."""
    task = documents(key(), from_texts(TEXTS), num_steps=6, key_dim=128, value_dim=128, embedding=embedding)
    keys, values, *_ = map(np.asarray, task.associations[:2])
    stored = jnp.array([np.linalg.lstsq(keys[:, n], values[:, n], rcond=1e-9)[0].T for n in range(2)])
    answers = ask(lambda memory, cue: memory @ cue, stored, task)
    own = recall_measures(answers, task.questions, about="own")
    assert own["accuracy"] == 1
    assert own["nmse"] < 1e-12
    assert recall_measures(answers, task.questions, about="others")["nmse"] > 0.3


def test_one_pure_function_of_a_key_in_either_precision():
    make = functools.partial(documents, corpus=from_texts(TEXTS), num_steps=4, key_dim=16, value_dim=16)
    seeds = jax.random.split(key(), 3)
    together = jax.jit(jax.vmap(lambda k: make(k, dtype=jnp.float32)))(seeds)
    for row, seed in enumerate(seeds):
        alone = make(seed, dtype=jnp.float32)
        assert alone.associations.keys.dtype == alone.candidates.dtype == jnp.float32
        jax.tree.map(
            lambda all_seeds, one, row=row: np.testing.assert_array_equal(all_seeds[row], one), together, alone
        )
        np.testing.assert_allclose(make(seed).associations.keys, alone.associations.keys, rtol=1e-6)


def test_interests_of_own_texts():
    np.testing.assert_array_equal(from_texts(TEXTS).interests, [[0.5, 0.5], [0.5, 0.5]])
    mine = np.array([[0.9, 0.1], [0.0, 1.0]])
    corpus = from_texts(TEXTS, interests=mine)
    np.testing.assert_array_equal(corpus.interests, mine)
    assert corpus.names == ("gardener", "baker")
    assert corpus.holders.tolist() == [0, 0, 1, 1, 1]
    three = from_texts(TEXTS | {"clerk": [("Files", "Are kept.")]}).interests
    np.testing.assert_array_equal(three, [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: from_texts({}), "{name: [(title, body), ...]}, but it is {}"),
        (lambda: from_texts([("a", "b")]), "{name: [(title, body), ...]}, but it is [('a', 'b')]"),  # pyright: ignore[reportArgumentType]
        (lambda: from_texts({"ann": []}), "texts must hold (title, body) pairs of every agent, but of 'ann' it is []"),
        (lambda: from_texts({"ann": "a text"}), "of every agent, but of 'ann' it is a text"),  # pyright: ignore[reportArgumentType]
        (lambda: from_texts({"ann": ["ab"]}), "texts must hold (title, body) pairs, but 'ann' holds ab"),  # pyright: ignore[reportArgumentType]
        (lambda: from_texts({"ann": [("a", 3)]}), "texts must hold (title, body) pairs, but 'ann' holds ('a', 3)"),  # pyright: ignore[reportArgumentType]
        (lambda: from_texts({"ann": [("a", " ")]}), "not empty, but 'ann' holds ('a', ' '); leave it out"),
        (lambda: from_texts({"ann": [("a", "b")], "bob": [("c", "b")]}), "but 'ann' and 'bob' both hold 'b'"),
        (lambda: from_texts(TEXTS, interests=np.eye(3)), "interests must have shape (2, 2)"),
        (lambda: from_texts(TEXTS, interests=np.ones((2, 2))), "interests must be row-stochastic"),
        (lambda: documents(key(), TEXTS, num_steps=3), "corpus must be of type Corpus"),  # pyright: ignore[reportArgumentType]
        (lambda: documents(key(), from_texts(TEXTS), num_steps=3, key_dim=0), "key_dim must be a positive integer"),
        (lambda: split_evenly([("a", "b")], 2), "as many as the 2 agents or more, but it is [('a', 'b')]"),
        (lambda: split_evenly("a text", 2), "documents must be a list of (title, body) pairs"),  # pyright: ignore[reportArgumentType]
        (lambda: read_text(None), "path must name a text file, but it is None"),  # pyright: ignore[reportArgumentType]
        (lambda: documents(key(), from_texts(TEXTS), num_steps=3, embedding="x"), "embedding must be a function of"),  # pyright: ignore[reportArgumentType]
        (lambda: split_evenly([("a", "b")], 0), "num_agents must be a positive integer"),
    ],
)
def test_bad_texts(untyped, build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def test_a_text_is_parted_at_empty_lines_and_after_first_sentences(tmp_path):
    path = tmp_path / "letters.txt"
    path.write_bytes(
        "\ufeffThe rose wants sun, i.e. a wall.\r\nÄnd water! Much.\r\n \t\r\n\r\nA HEADING\r\n\r\nWhy? Because."
        "\n\nOne sentence only.\n\nAgain why? Because.\n".encode()
    )
    assert read_text(path) == [
        ("The rose wants sun, i.e. a wall.", "Änd water! Much."),
        ("Why?", "Because."),
    ]
    assert read_text(str(path)) == read_text(path)


def test_what_is_no_such_text(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\nOne sentence.\n\n")
    with pytest.raises(ValueError, match=r"paragraphs of two sentences or more, .*empty\.txt' has none"):
        read_text(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes(b"Caf\xe9. Bar.")
    with pytest.raises(ValueError, match=r"a readable text in UTF-8, but reading .*latin\.txt' gave"):
        read_text(tmp_path / "latin.txt")
    with pytest.raises(ValueError, match="a readable text in UTF-8, but reading"):
        read_text(tmp_path / "missing.txt")


def test_first_sentences():
    for text, expected in (
        ("One.", ("One.", "")),
        ("", ("", "")),
        ("Return x\n\nwhere x > 0. Else y.", ("Return x", "where x > 0. Else y.")),
        ("A value of 0.5 or so, cf. the table. (See there.)", ("A value of 0.5 or so, cf. the table.", "(See there.)")),
    ):
        assert first_sentence(text) == expected


def test_a_file_shared_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"Title {row}. Body {row}." for row in range(7)))
    shares = split_evenly(read_text(path), 3)
    assert list(shares) == ["agent 0", "agent 1", "agent 2"]
    assert [document for share in shares.values() for document in share] == read_text(path)
    assert [len(share) for share in shares.values()] == [3, 2, 2]
    assert documents(key(), from_texts(shares), num_steps=2).candidates.shape == (7, 256)

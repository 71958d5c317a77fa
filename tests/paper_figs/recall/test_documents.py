"""The figure of documents: what it measures, whom it measures, a text of one's own, and its claim."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import damjax
from damjax import recall
from paper_figs.recall import documents
from paper_figs.recall.documents import ALONE, FIGURE, WORDS, compute, draw_task, learn, learners, measure, mixtures

QUICK = FIGURE.sized(quick=True, num_seeds=2).protocol
SMALL = dataclasses.replace(
    documents.Protocol(),
    num_seeds=3,
    num_tuning_seeds=1,
    num_documents=12,
    num_features=512,
    dims=(24, 64),
    dim=24,
    horizons=(12, 96),
    rate_constants=(1.0, 8.0),
)


@pytest.fixture(scope="module")
def problem():
    return documents.prepare(QUICK)


@pytest.mark.long
def test_who_listens_answers_about_its_interests_and_consensus_needs_room():
    panels = compute(SMALL).panels
    own, others, none = (panels[f"{kind}_recall"].samples for kind in documents.KINDS)
    after_a_pass, at_the_end = ({name: curve[:, i] for name, curve in others.items()} for i in (0, -1))
    assert (own["DAM-TOGD"][:, -1] > 0.97).all()
    assert (own[ALONE][:, -1] > 0.97).all()
    # Delays cost time, and little else.
    assert (after_a_pass["DAM-TOGD"] < after_a_pass["OGD"] - 0.05).all()
    assert (at_the_end["DAM-TOGD"] > at_the_end["OGD"] - 0.06).all()
    assert (at_the_end["DAM-TOGD"] > 0.75).all()
    assert at_the_end[ALONE].max() < 0.02
    # Nobody has told it about these, but consensus tells everyone everything.
    assert none["DAM-TOGD"].max() < 0.03
    assert (none["C-DOGD"][:, -1] > 0.2).all()
    crowded, roomy = ({name: curve[:, i] for name, curve in panels["room"].samples.items()} for i in (0, -1))
    assert (crowded["C-DOGD"] < crowded["DAM-TOGD"] - 0.2).all()
    assert (roomy["C-DOGD"] > roomy["DAM-TOGD"] - 0.05).all()
    # What no learning can do.
    assert (crowded[WORDS] < 0.3).all()
    assert panels["own_recall"].columns["rate_constant"]["DAM-TOGD"] == [8.0]


def test_a_memory_alone_is_that_of_the_delta_rule(problem):
    """With the same documents in the same order, in a loop of NumPy; the other places change nothing."""
    task = draw_task(problem, QUICK, jax.random.key(1), 8)
    num_agents = len(problem.corpus.names)
    *_, alone = learners(problem, documents.ALGORITHMS, jnp.full(4, 0.7, QUICK.dtype))
    memories = learn(alone, task, len(problem.graph), QUICK.horizons)
    assert memories.shape == (3, num_agents, 8, 8)
    keys, values = np.asarray(task.associations.keys, float), np.asarray(task.associations.values, float)
    expected, kept = np.zeros((num_agents, 8, 8)), []
    for step in range(max(QUICK.horizons)):
        residual = np.einsum("nvk,nk->nv", expected, keys[step]) - values[step]
        expected = expected - 0.7 / np.sqrt(step + 1) * np.einsum("nv,nk->nvk", residual, keys[step])
        kept += [expected] if step + 1 in QUICK.horizons else []
    np.testing.assert_allclose(memories, kept, rtol=1e-4, atol=1e-5)


def test_agents_hear_what_they_import_and_full_information_hears_it_at_once(problem):
    """Lists of interests and tables of them are one thing; so are their delays."""
    task = draw_task(problem, QUICK, jax.random.key(1), 8)
    constants = jnp.full(4, 2.0, QUICK.dtype)
    ogd, _, togd, _ = learners(problem, documents.ALGORITHMS, constants)
    weights = damjax.weights.dense(problem.parts.weights)
    num_agents = len(problem.corpus.names)
    np.testing.assert_allclose(weights[:num_agents, :num_agents], problem.corpus.interests, rtol=1e-6)
    np.testing.assert_array_equal(weights[num_agents:], np.eye(len(problem.graph))[num_agents:])
    rate = damjax.schedules.inverse_sqrt(constants[0])
    parts = problem.parts
    tables = (
        damjax.ogd(parts.objective, weights, learning_rate=rate, domain=parts.domain),
        damjax.dam_togd(parts.objective, weights, problem.routes.delays, learning_rate=rate, domain=parts.domain),
    )
    for listed, table in zip((ogd, togd), tables, strict=True):
        memories = [learn(algorithm, task, len(problem.graph), QUICK.horizons) for algorithm in (listed, table)]
        np.testing.assert_allclose(*memories, rtol=1e-4, atol=1e-5)


def test_measures_are_those_of_a_loop(problem):
    task, holders = draw_task(problem, QUICK, jax.random.key(2), 8), problem.corpus.holders
    num_agents = len(problem.corpus.names)
    memories = jax.random.normal(jax.random.key(3), (num_agents, 8, 8), jnp.float32)
    measured = measure(memories, task, holders)
    keys, bodies = np.asarray(task.questions.keys)[:, 0], np.asarray(task.candidates)
    for asked in (0, 4):
        recalls = keys @ np.asarray(memories)[asked].T
        scores = recalls @ bodies.T
        ranks = (scores > np.diagonal(scores)[:, None]).sum(axis=1)
        errors = ((recalls - bodies) ** 2).sum(axis=1)
        for about in range(num_agents):
            held = holders == about
            assert measured["recall"][asked, about] == pytest.approx(np.mean(ranks[held] == 0), abs=1e-6)
            assert measured["mrr"][asked, about] == pytest.approx(np.mean(1 / (1 + ranks[held])), rel=1e-5)
            assert measured["nmse"][asked, about] == pytest.approx(np.mean(errors[held]), rel=1e-5)


def test_questions_are_mixed_by_interest():
    mixed = mixtures(np.array([[0.5, 0.2, 0.3], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(mixed["own"], np.eye(3) / 3)
    np.testing.assert_allclose(mixed["others"], [[0, 0.2, 0.3], [0.5, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(mixed["none"], np.array([[0, 0, 0], [0, 0, 1], [1, 1, 0]]) / 3)
    np.testing.assert_allclose(mixed["asked"].sum(axis=1), 1 / 3)
    assert "none" not in mixtures(np.full((2, 2), 0.5))


def test_the_places_are_those_of_the_topology(problem):
    """Ten agents on eleven places, and round trips of two steps a link on the map's shortest ways or longer ones."""
    graph = damjax.graphs.topology("Abilene")
    assert (len(problem.graph), len(problem.corpus.names)) == (len(graph), 10)
    panel = documents.agent_by_agent(problem, np.zeros((2, 10, 10)))
    for asker, name in enumerate(problem.corpus.names):
        assert panel.columns["interest"][name] == problem.corpus.interests[asker].tolist()
        assert panel.columns["round_trip"][name] == problem.routes.delays[asker, :10].tolist()
    numpy, python = (problem.corpus.names.index(name) for name in ("numpy", "python"))
    assert {graph.nodes[numpy]["name"], graph.nodes[python]["name"]} == {"Chicago", "New York"}
    assert problem.routes.delays[numpy, python] == 2


def write_text(path, num_paragraphs):
    words = np.random.default_rng(0).permutation(26 * 26).tolist()
    name = lambda i: chr(97 + words[i] // 26) + chr(97 + words[i] % 26) * 3  # noqa: E731
    text = "\n\n".join(
        f"{name(i)} is {name(i + 50)}. It {name(i + 99)} {name(i + 150)}." for i in range(num_paragraphs)
    )
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.long
def test_the_figure_from_a_text(tmp_path):
    text = write_text(tmp_path / "notes.txt", 40)
    figure = FIGURE.sized(quick=True, num_seeds=2, text=text)
    assert len(figure.protocol.text.documents) == 40
    paths = figure.make(tmp_path / "out")
    names = {f"recall_documents{ending}" for ending in (".png", ".pdf", ".csv", "_runs.csv", ".json")}
    assert {path.name for path in paths} == names == {path.name for path in (tmp_path / "out").iterdir()}
    settings = json.loads((tmp_path / "out" / "recall_documents.json").read_text())["settings"]
    assert settings["text"] == str(text)
    assert settings["libraries"] == {}
    assert settings["documents"] == {f"agent {n}": 4 if n < 7 else 3 for n in range(11)}
    # Everyone wants to know of everyone.
    table = (tmp_path / "out" / "recall_documents.csv").read_text()
    assert "others_recall" in table
    assert "none_recall" not in table


def test_texts_that_cannot_be_shared_out(tmp_path):
    with pytest.raises(ValueError, match=r"--text: documents must be a list of .* as many as the 11 agents or more"):
        FIGURE.sized(text=write_text(tmp_path / "short.txt", 3))
    with pytest.raises(ValueError, match=r"--text: path must name a readable text in UTF-8, but reading .*nowhere.txt"):
        FIGURE.sized(text=tmp_path / "nowhere.txt")


@pytest.mark.long
def test_the_record_says_what_was_read(tmp_path):
    FIGURE.sized(quick=True, num_seeds=2).make(tmp_path)
    settings = json.loads((tmp_path / "recall_documents.json").read_text())["settings"]
    assert set(settings["libraries"]) == set(recall.installed_libraries().names) == set(settings["places"])
    assert settings["libraries"]["jax"] == jax.__version__
    assert settings["documents"]["jax"] == QUICK.num_documents
    assert settings["graph"] == sorted(map(list, damjax.graphs.topology("Abilene").edges))
    assert settings["places"]["python"] == "New York"
    assert settings["topology"] == "Abilene"

"""Every argument of every public function, given what is of the wrong kind: an error that names the argument.

What is out of range, or wrong in its own way, stands in ``test_wrong_calls.py``.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import damjax
from damjax import bounds, domains, graphs, hindsight, objectives, particles, recall, streams, weights
from damjax.particles import bigrams, transformer

pytestmark = pytest.mark.usefixtures("untyped")
N, T = 3, 4
KEY = jax.random.key(0)
EQUAL = np.full((N, N), 1 / N)
ONES = jnp.ones((T, N, 2))
STREAM = damjax.Associations(ONES, ONES)
LONG = damjax.Associations(jnp.ones((40, N, 2)), jnp.ones((40, N, 2)))
NOW = damjax.Associations(ONES[0], ONES[0])
DELTA, BALL = objectives.delta_net(), domains.frobenius_ball(2.0)
OGD = damjax.ogd(DELTA, EQUAL, learning_rate=0.1, domain=BALL)
PAIR = particles.two_tokens(0.5, 0.75)
FULL = particles.full(jnp.eye(2), jnp.eye(2))
SOURCE = bigrams.Source(jnp.full(6, 1 / 6), jnp.full((6, 6), 1 / 6))
TASK = bigrams.trigger_task(SOURCE, num_triggers=2, length=4)
MODEL = transformer.draw_model(KEY, num_tokens=6, length=4, dim=8)
PLAIN = hindsight.Moments(None, None, jnp.ones((1, N, 1, 2)), jnp.zeros((1, N)))
TOKENS = jnp.zeros((2, 4), int)
MEMORY, WINDOW = recall.memories.linear(2, 2), recall.memories.window_attention(2, 2, length=3, num_senders=N)
RECALL = recall.continuous_mqar(KEY, dim=2, length=2 * T, num_pairs=1, num_agents=N, vocabulary=16)
ANSWERS = recall.judge(jnp.zeros((T, N, 2)), RECALL)
CORPUS = recall.from_texts({"one": [("Title.", "A body of words.")], "two": [("Another.", "Some more words.")]})
LINEAR = streams.draw_linear_model(KEY, num_agents=N, num_steps=2, key_dim=2, value_dim=2)

# Argument -> a right value, and wrong ones; by the function's name where it means something else there.
RIGHT: dict[str, Any] = {
    "alpha": 0.5,
    "arrivals": bounds.arrivals(np.zeros((N, N), int), T),
    "associations": STREAM,
    "batch": bigrams.Batch(TOKENS, TOKENS, TOKENS > 0),
    "batch_size": 2,
    "border": 2,
    "classes": [0, 1],
    "comparators": jnp.zeros((T, N, 2, 2)),
    "count": 3,
    "constants": bounds.Constants(jnp.ones(N), 2.0),
    "correlation": 0.5,
    "correlations": jnp.ones(2),
    "degree": 1,
    "delays": np.zeros((N, N), int),
    "diameter": 2.0,
    "dim": 8,
    "degrees": 3,
    "domain": BALL,
    "duration": 1.0,
    "dynamics": particles.descent(FULL, 0.1),
    "feature_dim": 2,
    "feature_map": lambda key: key,
    "frequencies": jnp.full(2, 0.5),
    "frequency": 0.75,
    "fun": jnp.sum,
    "gates": transformer.Params(jnp.ones(2), jnp.ones(2), jnp.ones(2)),
    "graph": graphs.path(N),
    "epochs": [(1, graphs.path(N), None)],
    "exponent": 0.5,
    "first_steps": [1],
    "happens": jnp.ones(3, bool),
    "holds": jnp.ones(3, bool),
    "horizon": T,
    "horizons": [T],
    "init": FULL.init,
    "input_gram": jnp.eye(2),
    "inputs": jnp.eye(2),
    "key": KEY,
    "key_dim": 2,
    "keys": ONES,
    "learning_rate": 0.1,
    "length": 4,
    "loss": jnp.sum,
    "losses": jnp.ones((T, N)),
    "lower": -1.0,
    "margins": jnp.ones(2),
    "memory": FULL,
    "mean_delays": np.zeros((N, N)),
    "mixing": EQUAL,
    "model": MODEL,
    "moments": PLAIN,
    "noise": 0.1,
    "norms": bounds.GradientNorms(jnp.ones((T, N, N)), jnp.ones((T, N))),
    "num_agents": N,
    "num_blocks": 2,
    "num_classes": 2,
    "num_columns": 2,
    "num_epochs": 2,
    "num_features": 2,
    "num_frequent": 1,
    "num_interests": 2,
    "num_rows": 2,
    "num_steps": T,
    "num_tokens": 4,
    "objective": DELTA,
    "optimizer": optax.sgd(0.1),
    "output_gram": jnp.eye(2),
    "outputs": jnp.eye(2),
    "params": jnp.zeros((N, 2, 2)),
    "parts": [BALL, BALL],
    "present": np.ones((1, N), bool),
    "probability": 1.0,
    "problem": PAIR,
    "radius": 1.0,
    "rank": 1,
    "rate": 1.0,
    "rates": jnp.ones((T, N)),
    "relation": jnp.full(2, 0.5),
    "routes": damjax.routing.compile_routes(graphs.path(N), EQUAL),
    "rows": jnp.eye(2),
    "scale": 1.0,
    "schedule": 0.1,
    "scores": jnp.zeros((2, 2)),
    "seed": 0,
    "share": 0.5,
    "shape": (2, 2),
    "smoothness": 1.0,
    "source": SOURCE,
    "sources": PLAIN,
    "speed": 0.1,
    "start": jnp.zeros((1, 1)),
    "state": OGD.init(jnp.zeros((N, 2, 2))),
    "targets": jnp.eye(2),
    "task": TASK,
    "text": "abab",
    "time": 1,
    "tokens": TOKENS,
    "tolerance": 1e-3,
    "trace": damjax.simulate(OGD, jnp.zeros((N, 2, 2)), LONG)[1],
    "trace_params": jnp.zeros((T, N, 2, 2)),
    "triggers": jnp.array([0]),
    "twin_losses": jnp.ones((T, N)),
    "upper": 1.0,
    "value_dim": 2,
    "values": ONES,
    "weights": EQUAL,
    "algorithm": OGD,
}
OWN_RIGHT: dict[str, Any] = {
    "diagnostics.diagnose.associations": LONG,
    "regret.step_losses.associations": NOW,
    "objectives.of_memory.apply": lambda params, key: params @ key,
    "objectives.of_memory.loss": lambda prediction, value, time: jnp.sum(prediction * value),
    "hindsight.best_in_hindsight.associations": STREAM,
    "particles.descent.optimizer": 0.1,
    "particles.evolve.params": jnp.zeros((2, 2)),
    "particles.parameterized.scores": FULL.scores,
    "particles.embeddings.orthogonal.num_tokens": 2,
    "particles.sharpness.params": jnp.zeros((2, 2)),
    "particles.bigrams.trigger_task.outputs": None,
    "particles.trajectories.spike_amplitude.losses": jnp.ones(3),
    "particles.trajectories.spike_duration.losses": jnp.ones(3),
    "particles.trajectories.in_logarithmic_regime.losses": jnp.ones(3),
    "particles.capacity.triangle.relation": jnp.ones(3),
    "streams.respond.targets": jnp.ones((N, 2, 2)),
    "hindsight.best_fit.objective": MEMORY.objective(),
    "hindsight.best_fit.starts": jnp.zeros((1, N, 2, 2)),
    "hindsight.best_fit.num_iterations": 1,
    "testing.check_memory.memory": MEMORY,
    "recall.ask.apply": MEMORY.apply,
    "recall.observe_recalls.apply": MEMORY.apply,
    **{f"recall.{name}.task": RECALL for name in ("ask", "observe_recalls", "judge")},
    "recall.judge.recalls": jnp.zeros((T, N, 2)),
    "recall.recall_measures.answers": ANSWERS,
    "recall.recall_measures.questions": RECALL.questions,
    "recall.embed_sequences.sequences": recall.mqar(KEY, length=8, num_pairs=1, vocabulary=16),
    "recall.embed_sequences.embeddings": jnp.ones((16, 2)),
    "recall.bigram_recall.params": transformer.zeros(MODEL),
    "recall.mqar.length": 8,
    "recall.mqar.num_pairs": 1,
    "recall.continuous_mqar.length": 8,
    "recall.continuous_mqar.num_pairs": 1,
    "recall.documents.corpus": CORPUS,
    "recall.from_arrays.keys": jnp.ones((N, 2)),
    "recall.from_arrays.values": jnp.ones((N, 2)),
    "recall.from_arrays.holders": np.arange(N),
    "recall.from_texts.texts": {"one": [("Title.", "A body.")]},
    "recall.split_evenly.documents": [("Title.", "A body."), ("Another.", "More.")],
    "recall.split_evenly.num_agents": 2,
    "recall.memories.mlp.width": 3,
    "recall.memories.slots.num_slots": 3,
    "recall.memories.multi_head.num_heads": 2,
    "features.split.num_heads": 2,
    "weights.dense.weights": weights.sparse(EQUAL),
    **{
        f"particles.transformer.{name}.params": transformer.zeros(MODEL)
        for name in ("forward", "loss", "margins", "readout")
    },
    "particles.transformer.accuracy.params": transformer.zeros(MODEL),
}
TEXT, ROW, NUMBER, CUBE, HALF = "text", np.ones(7), -1, np.ones((2, 2, 2)), 1.5
ANYTHING = (None, TEXT)
OWN_WRONG: dict[str, tuple[Any, ...]] = {
    "observe": (None, TEXT, lambda params: params, damjax.ogd),
    "learning_rate": (None, TEXT, ROW, NUMBER, damjax.ogd),
    "schedule": (None, TEXT, ROW, NUMBER, damjax.ogd),
    "optimizer": (None, TEXT, NUMBER, optax.sgd),
    "feature_map": (None, TEXT, damjax.features.positive_orthogonal),
    "fun": (None, TEXT),
    "loss": (None, TEXT, damjax.ogd),
    "gradient": (TEXT, damjax.ogd),
    "transform": (TEXT, optax.adam),
    "answers": (TEXT, damjax.ogd),
    "objective": (None, TEXT, objectives.delta_net),
    "domain": (None, NUMBER, domains.frobenius_ball),
    "weights": (None, TEXT, ROW, CUBE),
    "mixing": (None, TEXT, ROW, CUBE),
    "delays": (None, TEXT, ROW, CUBE),
    "associations": (None, TEXT, [ONES, ONES], damjax.ogd),
    "horizons": (None, TEXT, 3, [2.5], []),
    "order": (None, TEXT, ROW),
    "method": (None, TEXT, ROW),
    "seed": (None, TEXT, HALF, NUMBER),
    "dtype": (TEXT, int, ROW),
    "text": (None, 3, b"abab"),
    "time": (None, TEXT),
    "key": (None, TEXT),
    "in_axes": (TEXT, 2),
    "shape": (TEXT, 3),
    "axis": (TEXT, HALF),
    "outputs": (TEXT, ROW),
    "classes": (None, TEXT, [0.5]),
    "margins": (TEXT, CUBE),
    "init": (None, TEXT),
    "gates": (TEXT, ROW),
    "start": (None, TEXT, ROW),
    "arrivals": (TEXT, ROW),
    "max_delay": (TEXT, HALF, NUMBER),
    "num_interests": (None, TEXT, HALF, 0, N + 1),
    "scale": (None, TEXT, NUMBER),
    "exponent": (None, TEXT, NUMBER),
    "horizon": (None, TEXT, NUMBER),
    **{name: (None, TEXT, HALF, 0) for name in RIGHT if name.startswith("num_")},
    **dict.fromkeys(("rank", "key_dim", "value_dim", "dim", "degrees", "length", "batch_size"), (None, TEXT, HALF, 0)),
    **dict.fromkeys(("checkpoint_every", "unroll"), (TEXT, HALF, 0)),
    "degree": (None, TEXT, HALF, NUMBER),
    **dict.fromkeys(("personal_mean", "personal_variance"), (None, TEXT, NUMBER, (1.0,), (2.0, 1.0))),
    **dict.fromkeys(
        ("radius", "total", "probability", "concentration", "self_factor", "noise_std", "duration", "noise", "share"),
        (None, TEXT, NUMBER, np.nan),
    ),
    **dict.fromkeys(("correlation", "frequency", "alpha"), (None, TEXT, np.nan, 2.5)),
}
# By function, where fewer things are wrong, or others.
OF_FUNCTION: dict[str, tuple[Any, ...]] = {
    "simulate.num_steps": (TEXT, HALF, 0, T + 1),
    "resume.num_steps": (TEXT, HALF, 0, T + 1),
    "particles.bigrams.source_from_text.num_tokens": (TEXT, HALF, 0),
    "particles.bigrams.zipf_source.exponent": (None, TEXT, NUMBER, ROW),
    "particles.flow.tolerance": (TEXT, NUMBER, ROW),
    "particles.Problem.input_gram": (TEXT, ROW, CUBE),
    "particles.Problem.output_gram": (TEXT, ROW, CUBE),
    "particles.Problem.frequencies": (TEXT, CUBE),
    "particles.Problem.targets": (TEXT, ROW, CUBE),
    "particles.from_embeddings.frequencies": (TEXT, CUBE),
    "particles.from_embeddings.targets": (TEXT, ROW, CUBE),
    "routing.compile_routes.latency": (TEXT,),
    "routing.compile_routes.traffic_weight": (TEXT, NUMBER, np.nan),
    "routing.compile_routes.lipschitz": (TEXT, ROW, CUBE),
    "routing.link_traffic.bits": (TEXT, HALF, 0),
    "streams.from_arrays.gates": (TEXT, ROW, CUBE),
    "streams.from_arrays.sample_weights": (TEXT, ROW, CUBE),
    "recall.from_texts.interests": (TEXT, ROW, CUBE),
    **{f"recall.{name}.weights": (TEXT, ROW, CUBE) for name in ("mqar", "continuous_mqar")},
    **{f"recall.memories.{name}.beta": (TEXT, NUMBER) for name in ("slots", "window_attention")},
    "recall.memories.multi_head.dtype": (),  # asked for beside heads: see test_memories
    "particles.binary.interferes.alpha": ANYTHING,
    "particles.binary.interferes.frequencies": ANYTHING,
    "particles.binary.interferes.margins": ANYTHING,
    "particles.binary.sharpness_at_zero.alpha": ANYTHING,
    "particles.binary.sharpness_at_zero.frequency": ANYTHING,
    "particles.binary.sharpness_at_zero.output_distance": ANYTHING,
    "bounds.harmonic_number.count": (None, TEXT, NUMBER),
    "bounds.harmonic_number.exponent": (None, TEXT, NUMBER, 2.0, ROW),
    "bounds.optimal_scale.horizon": (TEXT, NUMBER, ROW),
    "bounds.expected_delay.loss_probability": (None, TEXT, NUMBER, 1.0, ROW, CUBE),
    "bounds.expected_delay.mean_delays": (None, TEXT, ROW, CUBE, -EQUAL),
    "hindsight.minimize.tolerance": (None, TEXT, NUMBER, ROW),
    "testing.check_objective.num_points": (None, TEXT, HALF, 0),
    "testing.check_objective.params": (TEXT, {}),
    "testing.check_objective.values": (TEXT, ROW, CUBE),
    "testing.check_objective.gate": (TEXT,),
    "testing.check_domain.num_points": (None, TEXT, HALF, 0),
    "testing.check_domain.tolerance": (TEXT, NUMBER, 0),
    "testing.check_domain.memory": (None, TEXT, {}),
    "testing.check_algorithm.params": (None, TEXT, {}),
    "particles.evolve.observe": (None, TEXT, damjax.ogd),
    "particles.binary.flow_margins.start": ANYTHING,
    **{f"particles.binary.{name}.learning_rate": ANYTHING for name in ("flow_loss_bound", "loss_limit")},
    "particles.binary.margin_asymptote.learning_rate": ANYTHING,
    **{f"particles.sampling.{name}.key": () for name in ("minibatches", "noisy_labels")},  # read at each step
}
SWITCHES = "true or false of anything"
ELSEWHERE = "has its wrong calls in its own tests"
# What is not in the table, and why.
EXEMPT = {
    "same_class": SWITCHES,
    "gated": SWITCHES,
    "idf": SWITCHES,
    "reweight": SWITCHES,
    "rank_one": SWITCHES,
    "moves": "checked with rates in test_bounds",
    "cue": "the identity of anything",
}
MODULES = (
    *("bounds", "diagnostics", "domains", "features", "graphs", "hindsight", "objectives", "particles"),
    *("recall", "regret", "routing", "schedules", "streams", "testing", "weights"),
)
PARTICLE_MODULES = ("bigrams", "binary", "capacity", "embeddings", "sampling", "trajectories", "transformer")
EXEMPT_FUNCTIONS = {
    "sweep": ELSEWHERE,
    "rerun": ELSEWHERE,
    "recall.memories.stack": ELSEWHERE,
    "recall.memories.layer_by_layer": ELSEWHERE,
    "hindsight.best_beside_empty": "best_in_hindsight with one more result",
    "hindsight.checked_horizons": "is itself a check",
    "domains.as_domain": "is itself a check",
    "domains.has_support": "asks a set that was checked",
    "domains.with_support": "is itself a check",
    "graphs.canonical": "is itself a check",
}


def public_modules() -> dict[str, types.ModuleType]:
    """The modules of the face, and those of the particle study; not plotting, where matplotlib speaks."""
    of = {name: module for name, module in vars(damjax).items() if name in MODULES}
    inner = {f"particles.{name}": getattr(particles, name) for name in PARTICLE_MODULES}
    return {"": damjax} | of | inner | {"recall.memories": recall.memories}


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each once, by the shortest of its names below damjax."""
    seen = set()
    for place, module in public_modules().items():
        for name, value in vars(module).items():
            function = inspect.isfunction(value) or value is particles.Problem
            own = getattr(value, "__module__", "").startswith(module.__name__)
            if function and own and not name.startswith("_") and id(value) not in seen:
                seen.add(id(value))
                yield f"{place}.{name}".lstrip("."), value


FUNCTIONS = {name: function for name, function in public_functions() if name not in EXEMPT_FUNCTIONS}


def wrong_values(function: str, argument: str) -> tuple[Any, ...]:
    if argument in EXEMPT:
        return ()
    return OF_FUNCTION.get(f"{function}.{argument}", OWN_WRONG.get(argument, ANYTHING))


def parameters(function: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(FUNCTIONS[function]).parameters


def complaints(name: str) -> tuple[int, list[str]]:
    """How many wrong calls of a function were tried, and those that ended in no error that names the argument."""
    function, count, found = FUNCTIONS[name], 0, []
    right = {
        argument: OWN_RIGHT.get(f"{name}.{argument}", RIGHT.get(argument))
        for argument, parameter in parameters(name).items()
        if parameter.default is parameter.empty
    }
    for argument in parameters(name):
        for value in wrong_values(name, argument):
            count += 1
            try:
                function(**(right | {argument: value}))
            except (ValueError, TypeError) as error:
                if not re.search(rf"\b{argument}\b", str(error)):
                    found.append(f"{argument}={value!r}: {error}")
            except Exception as error:
                found.append(f"{argument}={value!r}: {type(error).__name__}: {error}")
            else:
                found.append(f"{argument}={value!r} is taken")
    return count, found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_kinds_are_refused_by_name(name):
    assert not complaints(name)[1]


def test_no_argument_is_forgotten():
    """Every public function is in the table or exempt, and every exemption is of something that is there."""
    names = dict(public_functions())
    assert set(EXEMPT_FUNCTIONS) <= set(names)
    arguments = {argument for function in FUNCTIONS.values() for argument in inspect.signature(function).parameters}
    assert set(EXEMPT) <= arguments
    assert sum(len(wrong_values(name, argument)) for name in FUNCTIONS for argument in parameters(name)) > 1000
    tried = {f"{name}.{argument}" for name in FUNCTIONS for argument in parameters(name)}
    assert tried >= {*OWN_RIGHT, *OF_FUNCTION}

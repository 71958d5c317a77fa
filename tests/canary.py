"""Does this jaxlib compile the library's sums rightly, and which sums of others does it not?

Every contraction, reduction and scan body that the library compiles is run mapped (jax.vmap, vmap_last, and divided
over two devices), as one program, and compared with the same function run operation by operation, and with NumPy where
it is a single sum: ``tests/test_compiler.py`` does it. The second table holds forms that the library avoids, a product
with a broadcast operand inside a sum. A release that gets all of them right makes the cap on jaxlib needless:

    python -m tests.canary
"""

import functools
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import damjax
from damjax import _arrays as contractions
from damjax.hindsight import moments
from damjax.hindsight.quadratic import Moments, best
from damjax.hindsight.samples import _cumulative_loss, samples
from damjax.particles import Problem, one_hot
from damjax.particles import loss as particle_loss
from damjax.particles import step as particle_step
from damjax.weights.interests import as_interests
from tests.cases import OBJECTIVES

SIZES = ((352, 10, 5), (1, 10, 5), (7, 10, 5), (88, 10, 5), (352, 3, 2), (352, 16, 16))
TOLERANCE = {"float64": 1e-9, "float32": 2e-4}
MAX_SLOWDOWN = 100.0
BALL = damjax.domains.frobenius_ball(2.0)


class Sum(NamedTuple):
    """A function of one run and its data.

    Attributes:
        draw: ``draw(rng, runs, N, d)``: arguments with a leading axis of runs, float64.
        compute: ``compute(*arguments of one run)``.
        expected: the same in NumPy, for all runs at once; None where only the eager run tells.
    """

    draw: Callable[..., tuple[np.ndarray, ...]]
    compute: Callable[..., Any]
    expected: Callable[..., np.ndarray] | None = None


def normal(*shapes: str) -> Callable[..., tuple[np.ndarray, ...]]:
    """Draws of these shapes, written in letters: n for N, d for the dimension, s for a feature more, 1 to 9."""

    def draw(rng: np.random.Generator, runs: int, num_agents: int, dimension: int) -> tuple[np.ndarray, ...]:
        lengths = {"n": num_agents, "d": dimension, "s": dimension + 1}
        return tuple(
            rng.normal(size=(runs, *(lengths[letter] if letter in lengths else int(letter) for letter in shape)))
            for shape in shapes
        )

    return draw


def many(*shapes: tuple[int, ...]) -> Callable[..., tuple[np.ndarray, ...]]:
    """Draws of fixed shapes, past the length up to which sums are written out."""
    return lambda rng, runs, num_agents, dimension: tuple(rng.normal(size=(runs, *shape)) for shape in shapes)


def weights_and(*shapes: str) -> Callable[..., tuple[np.ndarray, ...]]:
    """Row-stochastic weights, and normal draws."""

    def draw(rng: np.random.Generator, runs: int, num_agents: int, dimension: int) -> tuple[np.ndarray, ...]:
        weights = rng.dirichlet(np.ones(num_agents), size=(runs, num_agents))
        return (weights, *normal(*shapes)(rng, runs, num_agents, dimension))

    return draw


def uniform(like: Any) -> jax.Array:
    """Constant weights, which a compiler sees through."""
    num_agents = like.shape[0]
    return jnp.full((num_agents, num_agents), 1 / num_agents, like.dtype)


def edges(weights: Any) -> Any:
    """The same weights as an edge list."""
    num_agents = weights.shape[0]
    agents = (jnp.arange(num_agents)[:, None] + jnp.arange(num_agents)[None]) % num_agents
    return damjax.weights.SparseWeights(agents, jnp.take_along_axis(weights, agents, axis=1))


def objective_of(name: str, dimension: int) -> Any:
    factory = getattr(damjax.objectives, name)
    if name == "cross_entropy":
        return factory(jnp.eye(dimension))
    return factory(damjax.features.taylor(key_dim=dimension, degree=1)) if "softmax" in name else factory()


def associations(name: str, keys: Any, values: Any, gates: Any) -> Any:
    gated = name.startswith("gated")
    return damjax.Associations(keys, values, jax.nn.sigmoid(gates) if gated else None)


def stream_of(now: Any, factors: tuple[float, ...]) -> Any:
    """A step for every factor; gates stay between 0 and 1."""
    gates = None if now.gates is None else jnp.stack([now.gates * abs(factor) for factor in factors])
    keys, values = (jnp.stack([leaf * factor for factor in factors]) for leaf in (now.keys, now.values))
    return damjax.Associations(keys, values, gates)


def step_losses(name: str) -> Callable[..., jax.Array]:
    def compute(weights: Any, params: Any, keys: Any, values: Any, gates: Any) -> jax.Array:
        now, objective = associations(name, keys, values, gates), objective_of(name, keys.shape[-1])
        return damjax.regret.step_losses(objective, weights, params, now, 2)

    return compute


def run(algorithm: str, name: str, *, constant: bool) -> Callable[..., Any]:
    """Memories, losses and gradient norms of a run over four steps."""

    def compute(weights: Any, params: Any, keys: Any, values: Any, gates: Any) -> Any:
        num_agents = keys.shape[0]
        objective, now = objective_of(name, keys.shape[-1]), associations(name, keys, values, gates)
        weights = uniform(weights) if constant else weights
        settings = {"learning_rate": damjax.schedules.inverse_sqrt(0.1), "domain": BALL}
        if algorithm == "dam_togd":
            delays = 2 * (np.add.outer(np.arange(num_agents), -np.arange(num_agents)) % 2)
            made = damjax.dam_togd(objective, weights, delays, **settings)
        elif algorithm == "ogd":
            made = damjax.ogd(objective, weights, **settings)
        else:
            mixing = damjax.graphs.metropolis_weights(damjax.graphs.ring(num_agents))
            made = damjax.c_dogd(objective, mixing, order=algorithm, **settings)
        stream = stream_of(now, (1.0, 0.5, -0.7, 0.2))
        losses = damjax.regret.observe_losses(objective, weights)
        norms = damjax.bounds.observe_gradient_norms(objective, weights)
        observe = lambda *seen: (losses(*seen), norms(*seen))  # noqa: E731
        state, observed = damjax.simulate(made, 0.1 * params, stream, observe=observe)
        return state.params, observed

    return compute


def hindsight(name: str, *, constant: bool) -> Callable[..., Any]:
    """What the best memory is found by: moments, also those of one step, whose loop is unrolled, or samples."""

    def compute(weights: Any, params: Any, keys: Any, values: Any, gates: Any) -> Any:
        objective, now = objective_of(name, keys.shape[-1]), associations(name, keys, values, gates)
        stream = stream_of(now, (1.0, 0.5, -0.7))
        weights = uniform(weights) if constant else weights
        if not objective.kind.entrywise:
            share = jnp.stack([weights[0]] * 2 + [0 * weights[0]])
            sources = samples(objective, stream, [3])
            loss, gradient, steepness = _cumulative_loss(objective, share, sources.features, sources.values, None)
            return loss(params[0]), gradient(params[0]), steepness
        found = []
        for horizons in ([1], [1, 3]):
            total = moments(objective, stream, horizons).weighted_sum(as_interests("weights", weights))
            memories = jnp.broadcast_to(params, total.linear.shape)
            found.append((total, total.value(memories), total.gradient(memories)))
        return found

    return compute


def least_loss(curvature: Any, linear: Any) -> jax.Array:
    """In closed form, of one quadratic in the ball."""
    hessian = curvature @ curvature.T
    return best(Moments(hessian, None, linear, jnp.zeros((), linear.dtype)), BALL).loss


def particles(inputs: Any, outputs: Any, scores: Any) -> Any:
    """With Gram matrices that vary, are the identity, or constant, and frequencies that are all alike."""
    num_tokens, num_classes = scores.shape
    frequencies = jnp.full(num_tokens, 1 / num_tokens, scores.dtype)
    targets = one_hot(np.arange(num_tokens) % num_classes, num_classes)
    problems = [
        Problem(inputs @ inputs.T, outputs @ outputs.T, frequencies, targets),
        Problem(jnp.eye(num_tokens), jnp.eye(num_classes), frequencies, targets),
        Problem(jnp.ones((num_tokens, num_tokens)), jnp.ones((num_classes, num_classes)), frequencies, targets),
    ]
    moved = [particle_step(scores, problem, 0.1) for problem in problems]
    trained = damjax.particles.simulate(scores, problems[1], 0.1, 3)
    losses = [particle_loss(after, problem) for after, problem in zip(moved, problems, strict=True)]
    return moved, losses, damjax.particles.margins(moved[0], problems[0]), trained


def static_bounds(weights: Any, slopes: Any) -> Any:
    lipschitz, num_agents = jnp.abs(slopes), slopes.shape[0]
    known = damjax.bounds.Constants(lipschitz, jnp.asarray(2.0, slopes.dtype))
    delays = 2 * (np.add.outer(np.arange(num_agents), -np.arange(num_agents)) % 2)
    found = [
        bound(weights, delays, known, scale=0.3, horizon=50)
        for bound in (damjax.bounds.dam_togd_printed, damjax.bounds.dam_togd_mended, damjax.bounds.weighted_delay)
    ]
    realised = damjax.bounds.realised_delay(
        weights, known, rates=jnp.full((4, num_agents), 0.1, slopes.dtype), arrivals=damjax.bounds.arrivals(delays, 4)
    )
    return found, damjax.bounds.ogd(weights, known, scale=0.3, horizon=50), realised


def problem_of(name: str, gates: str = "n") -> Callable[..., tuple[np.ndarray, ...]]:
    """Weights, memories, keys, values and gates."""
    return weights_and("nds" if "softmax" in name else "ndd", "nd", "nd", gates)


def of_interests(compute: Callable[..., Any], weights_of: Callable[..., Any] = lambda weights: weights) -> Any:
    return lambda weights, *rest: compute(as_interests("weights", weights_of(weights)), *rest)


SUMS: dict[str, Sum] = {
    "predictions": Sum(
        normal("ndd", "nd"), contractions.predictions, lambda x, phi: np.einsum("bnij,bmj->bnmi", x, phi)
    ),
    "predictions, many": Sum(
        many((4, 3, 40), (4, 40)), contractions.predictions, lambda x, phi: np.einsum("bnij,bmj->bnmi", x, phi)
    ),
    "sum_outer": Sum(normal("nnd", "nnd"), contractions.sum_outer, lambda r, phi: np.einsum("bnmi,bnmj->bnij", r, phi)),
    "sum_outer, shared": Sum(
        normal("nnd", "1nd"),
        contractions.sum_outer,
        lambda r, phi: np.einsum("bnmi,bmj->bnij", r, phi[:, 0]),
    ),
    "sum_outer, many": Sum(
        many((4, 40, 3), (1, 40, 5)),
        contractions.sum_outer,
        lambda r, phi: np.einsum("bnmi,bmj->bnij", r, phi[:, 0]),
    ),
    "sum_last": Sum(normal("nd"), contractions.sum_last, lambda x: x.sum(axis=-1)),
    "sum_last, many": Sum(many((3, 40)), contractions.sum_last, lambda x: x.sum(axis=-1)),
    "sum_squares": Sum(normal("dd"), contractions.sum_squares, lambda x: (x**2).sum(axis=(1, 2))),
    "sum_squares, many": Sum(many((70, 3)), contractions.sum_squares, lambda x: (x**2).sum(axis=(1, 2))),
    "total": Sum(
        weights_and("ndd"),
        of_interests(lambda interests, x: interests.weighted_sum(x)),
        lambda w, x: np.einsum("bnm,bmij->bnij", w, x),
    ),
    "total of what all hold": Sum(
        weights_and("1dd"),
        of_interests(lambda interests, x: interests.weighted_sum(x)),
        lambda w, x: w.sum(axis=2)[:, :, None, None] * x,
    ),
    "total of what all hold, summed": Sum(
        weights_and("ndd", "1"),
        of_interests(
            lambda interests, x, y: jnp.sum(interests.weighted_sum(jnp.broadcast_to(y[:, None], x.shape)) * x)
        ),
        lambda w, x, y: np.einsum("bnm,bnij->b", w, x) * y[:, 0],
    ),
    "total of one number each, summed": Sum(
        weights_and("ndd", "n"),
        of_interests(lambda interests, x, y: jnp.sum(interests.weighted_sum(y[:, None, None]) * x**2, axis=(1, 2))),
        lambda w, x, y: np.einsum("bnm,bm,bnij->bn", w, y, x**2),
    ),
    "total, uniform weights": Sum(
        weights_and("ndd"),
        of_interests(lambda interests, x: jnp.sum(interests.weighted_sum(x) * x, axis=(1, 2)), uniform),
        lambda w, x: np.einsum("bij,bnij->bn", x.mean(axis=1), x),
    ),
    "total, edge list": Sum(
        weights_and("ndd"),
        of_interests(lambda interests, x: interests.weighted_sum(x), edges),
        lambda w, x: np.einsum("bnm,bmij->bnij", w, x),
    ),
    "recalled, edge list": Sum(
        weights_and("ndd", "nd"),
        of_interests(lambda interests, x, phi: interests.predictions(x, phi, jnp.asarray(1)), edges),
    ),
    "gradient": Sum(
        weights_and("nnd", "nd"),
        of_interests(lambda interests, r, phi: interests.weighted_outer(r, interests.gather(phi), jnp.asarray(1))),
        lambda w, r, phi: np.einsum("bnm,bnmi,bmj->bnij", w, r, phi),
    ),
    "gradient, uniform weights": Sum(
        weights_and("nnd", "nd"),
        of_interests(
            lambda interests, r, phi: interests.weighted_outer(r, interests.gather(phi), jnp.asarray(1)), uniform
        ),
        lambda w, r, phi: np.einsum("bnmi,bmj->bnij", r, phi) / w.shape[1],
    ),
    "gradient, edge list": Sum(
        weights_and("nnd", "nd"),
        of_interests(
            lambda interests, r, phi: interests.weighted_outer(r, interests.gather(phi), jnp.asarray(1)), edges
        ),
    ),
    "projection": Sum(normal("ndd"), jax.vmap(BALL.project)),
    "least loss": Sum(normal("dd", "dd"), least_loss),
    "random features": Sum(
        normal("nd"),
        lambda keys: jax.vmap(
            damjax.features.positive_orthogonal(jax.random.key(0), key_dim=keys.shape[1], num_features=12)
        )(keys),
    ),
    "particles": Sum(normal("nd", "dd", "nd"), particles),
    "bounds": Sum(weights_and("n"), static_bounds),
    **{f"losses, {name}": Sum(problem_of(name), step_losses(name)) for name in OBJECTIVES},
    "losses, gates by row": Sum(problem_of("", "nd1"), step_losses("gated_linear_attention")),
    "losses, gates by column": Sum(problem_of("", "n1d"), step_losses("gated_linear_attention")),
    "losses, gates by entry": Sum(problem_of("", "ndd"), step_losses("gated_linear_attention")),
    **{
        f"run, {algorithm}, {name}{', uniform weights' * constant}": Sum(
            problem_of(name), run(algorithm, name, constant=constant)
        )
        for algorithm, name, constant in (
            ("dam_togd", "delta_net", False),
            ("dam_togd", "normalized_softmax_attention", True),
            ("ogd", "gated_softmax_attention", False),
            ("ogd", "cross_entropy", False),
            ("adapt_then_combine", "delta_net", False),
            ("combine_then_adapt", "normalized_softmax_attention", False),
        )
    },
    **{
        f"hindsight, {name}{', uniform weights' * constant}": Sum(problem_of(name), hindsight(name, constant=constant))
        for name, constant in (
            ("delta_net", False),
            ("linear_attention", True),
            ("normalized_softmax_attention", True),
            ("gated_softmax_attention", False),
            ("cross_entropy", False),
        )
    },
}

# Sums as one might write them, that releases of jaxlib since 0.10.2 get wrong on CPUs.
AVOIDED: dict[str, Sum] = {
    "product with a constant, in a sum": Sum(
        weights_and("ndd"),
        lambda w, x: jnp.sum(jnp.einsum("nm,mij->nij", w, jnp.ones(x.shape, x.dtype)) * x, axis=(1, 2)),
        lambda w, x: np.einsum("bnm,bnij->bn", w, x),
    ),
    "product with a number, in a sum": Sum(
        weights_and("ndd", "1"),
        lambda w, x, y: jnp.sum(jnp.einsum("nm,mij->nij", w, jnp.broadcast_to(y[:, None], x.shape)) * x, axis=(1, 2)),
        lambda w, x, y: np.einsum("bnm,bnij->bn", w, x) * y,
    ),
    "product with a number per row, in a sum": Sum(
        weights_and("ndd", "n"),
        lambda w, x, y: jnp.sum(jnp.einsum("nm,mij->nij", w, jnp.broadcast_to(y[:, None, None], x.shape)) * x, (1, 2)),
        lambda w, x, y: np.einsum("bnm,bm,bnij->bn", w, y, x),
    ),
    "sum of a product with a constant": Sum(
        weights_and("nd"),
        lambda w, x: jnp.sum(w @ jnp.ones(x.shape, x.dtype), axis=1),
        lambda w, x: w.sum(axis=2) * x.shape[2],
    ),
    "product with a full matrix, in a sum": Sum(
        normal("44", "49", "1"),
        lambda w, x, y: ((w @ jnp.full(x.shape, y[0])) * x).sum(axis=-1),
        lambda w, x, y: y * w.sum(axis=2) * x.sum(axis=2),
    ),
    "squares of a product with the identity": Sum(
        lambda rng, runs, num_agents, dimension: (rng.normal(size=(40_000, 3)),),
        lambda x: jnp.sum((jnp.eye(3, dtype=x.dtype) @ x) ** 2),
        lambda x: (x**2).sum(axis=1),
    ),
}


def mappings(num_devices: int) -> dict[str, Callable[..., Any]]:
    """The ways in which the library maps runs: on one device or, given two, divided over them as a sweep does."""
    ways: dict[str, Callable[..., Any]] = {"vmap": jax.vmap}
    if num_devices == 1:
        ways["vmap_last"] = damjax.vmap_last
    else:
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("runs",))
        runs = jax.sharding.PartitionSpec("runs")
        over_devices = functools.partial(jax.shard_map, mesh=mesh, in_specs=runs, out_specs=runs, check_vma=False)
        ways["vmap_last on two devices"] = lambda compute: over_devices(damjax.vmap_last(compute))
    return ways


def sizes_of(name: str, dtype: str) -> tuple[tuple[int, int, int], ...]:
    """Runs, agents and dimension: all for a single sum, one for what is made of many, and for fixed shapes.

    In single precision one run, many, and the largest networks: at what lies between only the width of vectors differs.
    """
    if SUMS[name].expected is not None and "many" not in name:
        return SIZES if dtype == "float64" else (SIZES[0], SIZES[1], SIZES[-1])
    return SIZES[:1] if dtype == "float32" or "many" in name else SIZES[-1:]


def errors(one: Sum, ways: dict[str, Any], size: tuple[int, int, int], dtype: str) -> dict[str, float]:
    """Of every way to map, the largest error relative to the largest result: in NumPy, of a middle and the last run."""
    arguments = tuple(x.astype(dtype) for x in one.draw(np.random.default_rng(0), *size))
    lanes = sorted({size[0] // 2, size[0] - 1})
    with jax.disable_jit():
        eager = [one.compute(*(jnp.asarray(x[lane]) for x in arguments)) for lane in lanes]
    expected = None if one.expected is None else one.expected(*(x.astype(float) for x in arguments))
    worst = {}
    for way, mapping in ways.items():
        found = jax.tree.map(np.asarray, jax.jit(mapping(one.compute))(*arguments))
        off = [0.0 if expected is None else relative(found, expected)]
        for lane, result in zip(lanes, eager, strict=True):
            pairs = zip(jax.tree.leaves(found), jax.tree.leaves(result), strict=True)
            off += [relative(ours[lane], np.asarray(theirs)) for ours, theirs in pairs]
        worst[way] = float(np.max(off))
    return worst


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    difference = np.abs(found.astype(float) - expected.astype(float))
    # A NaN is as wrong as can be.
    return float(np.nan_to_num(difference.max() / max(np.abs(expected).max(), 1e-3), nan=np.inf))


def wrong(name: str, one: Sum, size: tuple[int, int, int], dtype: str) -> list[str]:
    """What is wrong, in words."""
    ways = mappings(jax.device_count() if size[0] % 2 == 0 else 1)
    return [
        f"{name}: off by {off:.2g} with {way}; {size} runs, agents and dimensions, {dtype}"
        for way, off in errors(one, ways, size, dtype).items()
        if off > TOLERANCE[dtype]
    ]


def cost_of_small_writes() -> float:
    """How many times longer a loop takes that writes a number a step into a large array.

    About one; thousands on jaxlib 0.11.1, which copies the array for every write (jax issue 40101). A ratio of CPU
    times in one process.
    """
    steps = jnp.arange(40_000.0, dtype=jnp.float32)

    def seconds(keep: bool) -> float:
        run = jax.jit(
            lambda steps: jax.lax.scan(lambda x, t: (x * 0.9 + t, x if keep else None), 0.0 * steps[0], steps)
        )
        jax.block_until_ready(run(steps))
        start = time.process_time()
        jax.block_until_ready([run(steps) for _ in range(3)])
        return time.process_time() - start

    return seconds(keep=True) / seconds(keep=False)


def wrong_singles(table: dict[str, Sum]) -> tuple[list[str], int]:
    """What is wrong of the single sums of a table, in words, and how many were tried."""
    singles = [(name, one, dtype) for name, one in table.items() if one.expected is not None for dtype in TOLERANCE]
    lines = [line for name, one, dtype in singles for line in wrong(name, one, SIZES[0], dtype)]
    return lines, len(singles) * len(mappings(jax.device_count()))


def main() -> None:
    """Print what this release gets wrong, and fail where the library itself would be."""
    jax.config.update("jax_enable_x64", True)
    ours, num_ours = wrong_singles(SUMS)
    with jax.default_matmul_precision("highest"):  # that a GPU rounds is another matter
        avoided, num_avoided = wrong_singles(AVOIDED)
    slowdown = cost_of_small_writes()
    print(f"jaxlib {version('jaxlib')}: of the library's sums {len(ours)} of {num_ours} are wrong, of those that it")
    print(f"avoids {len(avoided)} of {num_avoided}; small writes make a loop {slowdown:.1f} times slower")
    print(*ours, *avoided, sep="\n")
    if ours or slowdown > MAX_SLOWDOWN:
        sys.exit("this release is not fit for the library")


if __name__ == "__main__":
    main()

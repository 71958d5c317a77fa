import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import damjax
from damjax.recall import memories
from tests import reference
from tests.cases import in_the_long_run

N, T, DK, DV = 4, 30, 3, 2
RNG = np.random.default_rng(0)
KEYS, VALUES = RNG.normal(size=(T, N, DK)), RNG.normal(size=(T, N, DV))
STREAM = damjax.Associations(KEYS, VALUES)
WEIGHTS = RNG.dirichlet(np.ones(N), N)
BALL, EVERYWHERE = damjax.domains.frobenius_ball(1.5), damjax.domains.unconstrained()
# Made where they are used: what jax's default float is then, is set for every test.
ALL = {
    "linear": lambda: memories.linear(DK, DV),
    "taylor": lambda: memories.linear(DK, DV, feature_map=damjax.features.taylor(key_dim=DK, degree=2)),
    "multi_head": lambda: memories.multi_head(DK, DV, feature_maps=[jnp.sin, jnp.cos]),
    "mlp": lambda: memories.mlp(DK, DV, width=5, activation=jnp.tanh),
    "slots": lambda: memories.slots(DK, DV, num_slots=4),
    "stack": lambda: memories.stack(memories.mlp(DK, DV, width=4), memories.linear(DV, DV)),
    "window": lambda: memories.window_attention(DK, DV, length=6, num_senders=N),
}
LEARNED = [name for name in ALL if name != "window"]


def first(memory, num_agents=N, seed=1):
    """Random memories of all agents, not the ones that recall nothing."""
    params = jax.vmap(memory.init)(jax.random.split(jax.random.key(seed), num_agents))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), params)


def flat(params):
    """Memories (N, ..) as vectors (N, P), in the order of the leaves."""
    return np.concatenate([np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(params)], axis=1)


def mlp_gradient(params, key, value):
    """Of half the squared error, written out; leaves in alphabetical order: bias, hidden, out."""
    bias, hidden, out = params[:5], params[5:20].reshape(5, DK), params[20:].reshape(DV, 5)
    active = np.tanh(hidden @ key + bias)
    error = out @ active - value
    back = (out.T @ error) * (1 - active**2)
    return np.concatenate([back, np.outer(back, key).ravel(), np.outer(error, active).ravel()])


def slots_gradient(params, key, value):
    """Likewise; keys, values."""
    keys, values = params[: 4 * DK].reshape(4, DK), params[4 * DK :].reshape(4, DV)
    powers = np.exp(keys @ key / DK**0.5)
    shares = powers / powers.sum()
    error = shares @ values - value
    back = shares * (values @ error - shares @ values @ error) / DK**0.5
    return np.concatenate([np.outer(back, key).ravel(), np.outer(shares, error).ravel()])


class Written:
    """The problem of ``reference``, for memories that are vectors."""

    num_steps = T

    def __init__(self, gradient):
        self.of_one = gradient

    def gradient(self, params, agent, time):
        return self.of_one(params, KEYS[time - 1, agent], VALUES[time - 1, agent])


@pytest.mark.parametrize("name", ["linear", "taylor", "multi_head"])
def test_a_linear_memory_is_the_rank_one_path(name):
    """The same run by whole gradients in bins and by their two factors in rings."""
    memory = ALL[name]()
    delays = np.random.default_rng(2).integers(0, 7, (N, N))
    np.fill_diagonal(delays, 0)
    general = damjax.objectives.of_memory(memory.apply, damjax.objectives.delta_net().loss)
    runs = []
    for objective in (memory.objective(), general):
        rate = damjax.schedules.inverse_sqrt(0.3)
        algorithm = damjax.dam_togd(objective, WEIGHTS, delays, learning_rate=rate, domain=BALL)
        state, trace = damjax.simulate(algorithm, first(memory), STREAM)
        runs.append((type(state.box).__name__, trace.params))
    assert [box for box, _ in runs] == ["Rings", "Bins"]
    np.testing.assert_allclose(runs[0][1], runs[1][1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "gradient"), [("mlp", mlp_gradient), ("slots", slots_gradient)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_messages_carry_memories_of_any_shape(name, gradient, dtype):
    """Random delays and losses, against messages in NumPy with gradients written by hand."""
    memory, law = ALL[name](), damjax.channels.geometric(0.3, key=jax.random.key(3), max_delay=9)
    law = damjax.channels.lossy(law, 0.2, key=jax.random.key(4))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), first(memory))
    stream = jax.tree.map(lambda field: field.astype(dtype), STREAM)
    rate = damjax.schedules.inverse_sqrt(0.4)
    algorithm = damjax.dam_togd(memory.objective(), WEIGHTS, law, learning_rate=rate, domain=BALL)
    state, trace = damjax.simulate(algorithm, params, stream)
    table = np.asarray(law.table(T, (N, N)))
    expected = reference.delayed(
        Written(gradient),
        WEIGHTS,
        lambda time: table[time - 1],
        flat(params).astype(float),
        rate=lambda count: 0.4 / count**0.5,
        project=reference.ball(1.5),
    )
    tolerance = 1e-10 if dtype == "float64" else 2e-5
    steps = [flat(jax.tree.map(lambda leaf, t=t: leaf[t], trace.params)) for t in range(T)]
    np.testing.assert_allclose(np.stack([*steps, flat(state.params)]), expected.params, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(trace.info.num_lost, expected.lost)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("optimizer", ["sgd", *in_the_long_run("adam")])
def test_one_agent_is_plain_online_training(name, optimizer):
    """Without a network, projection or delay it is what anyone writes with optax."""
    memory = ALL[name]()
    objective = memory.objective()
    params, rate = first(memory, 1), 0.05
    scaled = {"sgd": None, "adam": optax.scale_by_adam()}[optimizer]
    algorithm = damjax.dam_togd(
        objective, np.eye(1), np.zeros((1, 1), int), learning_rate=rate, domain=EVERYWHERE, transform=scaled
    )
    own = jax.tree.map(lambda field: jnp.asarray(field[:, :1]), STREAM)
    state, _ = damjax.simulate(algorithm, params, own)

    plain = {"sgd": optax.sgd, "adam": optax.adam}[optimizer](rate)
    learned = jax.tree.map(lambda leaf: leaf[0], params)
    moments = plain.init(learned)
    for key, value in zip(own.keys[:, 0], own.values[:, 0], strict=True):
        slope = jax.grad(lambda p, k=key, v=value: 0.5 * jnp.sum((memory.apply(p, k) - v) ** 2))(learned)
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = plain.update(slope, moments, learned)
        learned = optax.apply_updates(learned, updates)
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(learned), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "algorithm"),
    [("mlp", "ogd"), ("mlp", "c_dogd"), ("mlp", "dam_togd"), ("slots", "dam_togd"), ("stack", "dam_togd")],
)
def test_every_algorithm_learns_every_memory(name, algorithm):
    """The laws of algorithms: purity, resumption, mapping, derivatives, dtypes; delays of a law, by bins."""
    settings = {"learning_rate": damjax.schedules.inverse_sqrt(0.2), "domain": BALL}
    late = damjax.channels.uniform(0, 3, key=jax.random.key(5))
    memory, mixing = ALL[name](), damjax.graphs.metropolis_weights(damjax.graphs.ring(N))
    factories = {
        "ogd": lambda o: damjax.ogd(o, WEIGHTS, **settings),
        "c_dogd": lambda o: damjax.c_dogd(o, mixing, **settings),
        "dam_togd": lambda o: damjax.dam_togd(o, WEIGHTS, late, **settings),
    }
    first_steps = jax.tree.map(lambda field: jnp.asarray(field[:6]), STREAM)
    damjax.testing.check_algorithm(factories[algorithm](memory.objective()), first(memory), first_steps)


@pytest.mark.parametrize("name", ALL)
def test_our_memories_keep_the_laws(name):
    damjax.testing.check_memory(ALL[name](), key_dim=DK, value_dim=DV)


def test_a_broken_memory_is_told_from_a_good_one():
    good = ALL["mlp"]()
    broken = {
        "init": good._replace(init=lambda key: {"hidden": jnp.zeros(3, int)}),
        "apply": good._replace(apply=lambda params, key: params["hidden"]),
        "dtype": good._replace(apply=lambda params, key: good.apply(params, key).astype(jnp.float16)),
        "features": ALL["linear"]()._replace(features=jnp.tanh),
        "derivative": good._replace(apply=lambda params, key: jnp.sqrt(jnp.maximum(good.apply(params, key), 0))),
    }
    for part, memory in broken.items():
        with pytest.raises(ValueError, match=r"memory\.|features"):
            damjax.testing.check_memory(memory, key_dim=DK, value_dim=DV)
        assert part


def test_what_a_stack_learns_without_back_propagation():
    """Every layer's gradient is that of the layer alone, fed with what the one before recalls."""
    below, above = memories.linear(DK, DV), memories.mlp(DV, DV, width=4)
    objective = memories.layer_by_layer(below, above, activation=jnp.tanh)
    params = jax.tree.map(lambda leaf: leaf[0], first(memories.stack(below, above)))
    key, value = jnp.asarray(KEYS[0, 0]), jnp.asarray(VALUES[0, 0])
    ours = objective.gradient(params, key, value)
    cue = jnp.tanh(below.apply(params[0], key))
    expected = (below.objective().gradient(params[0], key, value), above.objective().gradient(params[1], cue, value))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), ours, expected)
    whole = memories.stack(below, above, activation=jnp.tanh)
    np.testing.assert_allclose(whole.apply(params, key), above.apply(params[1], cue), rtol=1e-14)
    assert not np.allclose(whole.objective().gradient(params, key, value)[0], ours[0])


@pytest.mark.parametrize("delays", ["table", "law"])
def test_shared_associations_are_those_that_arrived(delays):
    """The attention of every agent at every step, written out over the associations of the last steps."""
    length, beta = 6, 1.3
    memory = memories.window_attention(DK, DV, length=length, num_senders=N, beta=beta)
    weights = np.where(WEIGHTS > 0.2, WEIGHTS, 0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    table = np.broadcast_to(np.random.default_rng(6).integers(0, 8, (N, N)), (T, N, N))
    given = table[0]
    if delays == "law":
        given = damjax.channels.lossy(
            damjax.channels.geometric(0.4, key=jax.random.key(7), max_delay=5), 0.3, key=jax.random.key(8)
        )
        table = np.asarray(given.table(T, (N, N)))
    keys = KEYS.copy()
    keys[3, 1] = np.nan
    missing = np.ones((T, N))
    missing[3, 1] = 0
    stream = damjax.Associations(keys, VALUES, sample_weights=missing)
    windows = jax.vmap(memory.init)(jax.random.split(jax.random.key(0), N))
    cue = jnp.asarray(RNG.normal(size=DK))
    _, (recalls, info) = damjax.simulate(
        memories.share_associations(weights, given),
        windows,
        stream,
        observe=lambda params, now, info: (jax.vmap(lambda p: memory.apply(p, cue))(params), info),
    )
    for time in range(1, T + 1):
        for n in range(N):
            there = [
                (s, m)
                for s in range(max(1, time - length), time)
                for m in range(N)
                if weights[n, m] > 0 and missing[s - 1, m] and 0 <= table[s - 1, n, m] <= time - 1 - s
            ]
            powers = np.array([np.exp(beta * keys[s - 1, m] @ np.asarray(cue)) for s, m in there])
            mean = sum(p * VALUES[s - 1, m] for p, (s, m) in zip(powers, there, strict=True)) if there else np.zeros(DV)
            np.testing.assert_allclose(recalls[time - 1, n], mean / (powers.sum() if there else 1), atol=1e-12)
    asked = (weights > 0)[None] & (missing[:, None] > 0)
    np.testing.assert_array_equal(info.num_lost, np.sum(asked & (table < 0), axis=2))
    assert bool(info.finite.all())
    in_time = asked & (table >= 0) & (table < length) & (np.arange(1, T + 1)[:, None, None] + table <= T)
    assert int(info.num_applied.sum()) == int(in_time.sum())
    assert int(info.max_age.max()) == int(table[in_time].max())


def test_nothing_is_learned_by_gradients_of_a_window():
    memory = ALL["window"]()
    windows = jax.vmap(memory.init)(jax.random.split(jax.random.key(0), N))
    state, _ = damjax.simulate(memories.share_associations(WEIGHTS, np.zeros((N, N), int)), windows, STREAM)
    one = jax.tree.map(lambda leaf: leaf[0], state.params)
    gradient = memory.objective().gradient(one, jnp.asarray(KEYS[0, 0]), jnp.asarray(VALUES[0, 0]))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_windows_of_other_senders_are_refused():
    memory = memories.window_attention(DK, DV, length=3)
    windows = jax.vmap(memory.init)(jax.random.split(jax.random.key(0), N))
    with pytest.raises(ValueError, match="num_senders=4"):
        memories.share_associations(WEIGHTS, np.zeros((N, N), int)).init(windows)


def test_a_matrix_keeps_its_regret_and_its_bound():
    memory = ALL["taylor"]()
    objective, scale = memory.objective(), 0.3
    delays = np.where(np.eye(N) > 0, 0, 3)
    algorithm = damjax.dam_togd(
        objective, WEIGHTS, delays, learning_rate=damjax.schedules.inverse_sqrt(scale), domain=BALL
    )
    start = jax.vmap(memory.init)(jax.random.split(jax.random.key(0), N))
    _, losses = damjax.simulate(algorithm, start, STREAM, observe=damjax.regret.observe_losses(objective, WEIGHTS))
    regret = damjax.regret.static_regret(losses, objective, WEIGHTS, BALL, STREAM, [T])[0]
    constants = damjax.bounds.constants(objective, BALL, STREAM)
    assert (regret <= damjax.bounds.weighted_delay(WEIGHTS, delays, constants, scale=scale, horizon=T)).all()


@pytest.mark.usefixtures("untyped")
def test_a_memory_that_is_no_matrix_has_no_regret_and_is_told_what_there_is():
    objective = ALL["mlp"]().objective()
    with pytest.raises(ValueError, match=r"regret_against.*best_fit"):
        damjax.regret.static_regret(jnp.zeros((T, N)), objective, WEIGHTS, BALL, STREAM, [T])


def test_a_ridge_is_of_matrices_only():
    gated = damjax.objectives.gated_linear_attention()
    assert ALL["linear"]().objective(gated).gated
    with pytest.raises(ValueError, match="loss must be one of recalls"):
        ALL["mlp"]().objective(gated)


def test_heads_see_pieces_of_the_cue_or_all_of_it():
    rng = np.random.default_rng(9)
    params, cue = jnp.asarray(rng.normal(size=(6, 2))), jnp.asarray(rng.normal(size=4))
    by_pieces = memories.multi_head(4, 6, num_heads=2)
    np.testing.assert_allclose(
        by_pieces.apply(params, cue), np.concatenate([params[:3] @ cue[:2], params[3:] @ cue[2:]]), rtol=1e-14
    )
    assert jax.tree.leaves(by_pieces.init(jax.random.key(0)))[0].shape == (6, 2)
    by_maps = memories.multi_head(2, 6, feature_maps=[jnp.sin, jnp.tanh, jnp.cos])
    rows = [params[2 * h : 2 * h + 2] @ f(cue[:2]) for h, f in enumerate((np.sin, np.tanh, np.cos))]
    np.testing.assert_allclose(by_maps.apply(params, cue[:2]), np.concatenate(rows), rtol=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 3}, "num_heads must divide key_dim, 4"),
        ({"num_heads": 4}, "value_dim must be a multiple of the 4 heads"),
        ({}, "num_heads or feature_maps must say"),
        ({"num_heads": 2, "feature_maps": [jnp.sin]}, "num_heads or feature_maps must say"),
        ({"num_heads": 0}, "num_heads must be a positive integer"),
    ],
)
def test_heads_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        memories.multi_head(4, 6, **settings)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("make", [memories.stack, memories.layer_by_layer])
def test_what_is_no_stack_is_refused(make):
    layer = memories.linear(2, 2)
    with pytest.raises(ValueError, match="memories must be at least one"):
        make()
    with pytest.raises(ValueError, match="memory must be of type Memory"):
        make(layer, "text")
    with pytest.raises(ValueError, match="activation must be a function"):
        make(layer, layer, activation="text")


@pytest.mark.usefixtures("untyped")
def test_a_dtype_that_is_none_is_refused():
    with pytest.raises(ValueError, match="dtype must name a floating-point type"):
        memories.multi_head(2, 2, num_heads=2, dtype=int)
    assert memories.multi_head(2, 2, num_heads=2, dtype="float32").init(jax.random.key(0)).dtype == np.float32


@pytest.mark.usefixtures("untyped")
def test_a_loss_that_is_none_is_refused():
    for memory in (memories.linear(2, 2), memories.mlp(2, 2, width=3)):
        with pytest.raises(ValueError, match="loss must be a function"):
            memory.objective("text")  # pyright: ignore[reportArgumentType]


def test_a_loss_of_ones_own_keeps_its_regret_where_its_kind_is_told():
    def huber(recall, value, time):
        return jnp.sum(optax.losses.huber_loss(recall, value, delta=1.0))

    memory = ALL["taylor"]()
    objective = memory.objective(huber, kind=damjax.objectives.Smooth(1.0))
    start = jax.vmap(memory.init)(jax.random.split(jax.random.key(0), N))
    algorithm = damjax.ogd(objective, WEIGHTS, learning_rate=0.1, domain=BALL)
    _, losses = damjax.simulate(algorithm, start, STREAM, observe=damjax.regret.observe_losses(objective, WEIGHTS))
    assert (damjax.regret.static_regret(losses, objective, WEIGHTS, BALL, STREAM, [T]) > 0).all()
    for wrong, loss in ((ALL["mlp"](), huber), (memory, damjax.objectives.delta_net())):
        with pytest.raises(ValueError, match="kind must be left out"):
            wrong.objective(loss, kind=damjax.objectives.Smooth(1.0))

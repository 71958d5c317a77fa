"""Classes as pytrees: compiled functions tell them apart, and take them apart and put them together as they are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import damjax
from damjax import channels, domains
from damjax._pytrees import node_types, register_dataclass
from damjax.hindsight import quadratic
from tests.test_domains import Cube

KEY = jax.random.key(0)
LAWS = {
    "geometric": channels.geometric(0.3, key=KEY, max_delay=5),
    "exponential": channels.exponential(0.3, key=KEY, max_delay=5),
    "pareto": channels.pareto(2.0, key=KEY, max_delay=5),
}
SETS = {
    "frobenius_ball": domains.frobenius_ball(0.2),
    "l1_ball": domains.l1_ball(0.2),
    "nuclear_ball": domains.nuclear_ball(0.2),
}


@register_dataclass()
@dataclasses.dataclass(frozen=True)
class Pair:
    radius: Any
    other: Any


@register_dataclass(static=["other"])
@dataclasses.dataclass(frozen=True)
class Labelled:
    radius: Any
    other: str


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Disk(Cube):
    """Another set of a user's, with the same fields, which jaxlib may take for the first."""

    def project(self, tree: Any) -> Any:
        return domains.frobenius_ball(self.radius).project(tree)

    def support(self, direction: Any) -> Any:
        return domains.frobenius_ball(self.radius).support(direction)


@pytest.mark.parametrize("kinds", [LAWS, SETS], ids=["laws", "sets"])
def test_structures_of_classes_with_the_same_fields_differ(kinds):
    structures = [jax.tree.structure(kind) for kind in kinds.values()]
    for i, structure in enumerate(structures):
        assert structure == jax.tree.structure(list(kinds.values())[i])
        assert all(structure != other for other in structures[:i])
        assert structure != jax.tree.structure(Cube(0.2))


def test_what_is_static_is_structure_and_the_rest_is_data():
    assert jax.tree.structure(Labelled(1.0, "a")) == jax.tree.structure(Labelled(2.0, "a"))
    assert jax.tree.structure(Labelled(1.0, "a")) != jax.tree.structure(Labelled(1.0, "b"))
    assert jax.tree.structure(Pair(1.0, 2.0)) != jax.tree.structure(Labelled(1.0, "a"))
    assert jax.tree.leaves(Labelled(1.0, "a")) == [1.0]
    assert jax.tree.leaves(Pair(1.0, 2.0)) == [1.0, 2.0]
    assert jax.tree.map(lambda x: 2 * x, Labelled(1.0, "a")) == Labelled(2.0, "a")
    (path, _), _ = jax.tree_util.tree_leaves_with_path(Pair(1.0, 2.0))
    assert jax.tree_util.keystr(path) == ".radius"
    with pytest.raises(TypeError, match="no fields"):
        register_dataclass(static=["size"])(dataclasses.make_dataclass("Other", ["radius"]))


def test_classes_of_nodes():
    assert node_types(domains.product([Cube(1.0), Disk(2.0)])) == (domains.Product, tuple, Cube, Disk)
    assert node_types(1.0) == ()


WRAPPINGS = {"alone": lambda each: each, "product": lambda each: domains.product([each, each])}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_best_memory_of_a_users_class_is_never_that_of_another(wrapping, monkeypatch):
    """The structures of the two are equal where jaxlib errs, so what the program is found by must tell them apart."""
    moments, seen = damjax.hindsight.Moments(None, None, jnp.array([[3.0, 4.0], [0.5, 1.0]]), jnp.zeros(())), []
    compiled = quadratic._best_jitted
    monkeypatch.setattr(quadratic, "_best_jitted", lambda kinds, *rest: seen.append(kinds) or compiled(kinds, *rest))
    for kind in (Cube, Disk, Cube):
        domain = WRAPPINGS[wrapping](kind(0.2))
        expected = -jnp.sum(moments.linear * domain.support(moments.linear))
        assert jnp.allclose(damjax.hindsight.best(moments, domain).loss, expected)
    assert seen[0] == seen[2] != seen[1]

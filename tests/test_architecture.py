"""The import directions of the design, read from the source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "damjax"
BASE = {"_types", "_checks", "_numerics", "_contractions"}
ARRAYS = {"jax", "jaxtyping", "numpy", "optax"}
FEEDS = BASE | {"weights", "streams", "schedules", "features", "objectives", "domains", "delays", "_laws"}
LAYOUTS = {"_layouts", "_sparse"}
STEPS = FEEDS | LAYOUTS | {"_steps"}
# The particle study stands on its own: nothing of the distributed half comes in.
PARTICLES = (
    *("_roots", "bigrams", "binary", "capacity", "dynamics", "embeddings", "memories", "problem", "quantities"),
    *("sampling", "sharpness", "trajectories", "transformer"),
)

# module -> what it may import: modules of damjax, and libraries beside the standard one.
ALLOWED = {
    "__init__": (None, set()),
    "_types": ({"_checks"}, ARRAYS),
    "_checks": (set(), {"numpy"}),
    "_numerics": (set(), {"jax", "jaxtyping"}),
    "_steiner": (set(), {"jaxtyping", "networkx", "numpy", "scipy"}),
    "_contractions": (set(), {"jax", "jaxtyping"}),
    "_sparse": ({"_checks"}, {"numpy", "jaxtyping"}),
    "_layouts": (BASE | {"_sparse"}, ARRAYS),
    "_steps": (FEEDS | LAYOUTS, ARRAYS),
    "graphs": ({"_checks"}, {"networkx", "numpy"}),
    "routing": ({"_checks", "_sparse", "_steiner", "graphs"}, {"networkx", "numpy", "jaxtyping"}),
    "weights": (BASE | {"_sparse"}, ARRAYS),
    "streams": (BASE, ARRAYS),
    "schedules": (BASE, ARRAYS),
    "features": (BASE, ARRAYS),
    "objectives": (BASE | {"features"}, ARRAYS),
    "domains": (BASE, ARRAYS),
    "delays": (BASE, ARRAYS),
    "_laws": (BASE | {"domains", "objectives"}, ARRAYS),
    "algorithms": (STEPS, ARRAYS),
    "simulate": (BASE, ARRAYS),
    "batching": (set(), {"jax", "numpy"}),
    "_axes": ({"_checks"}, {"jax", "numpy"}),
    "_plan": ({"_axes"}, {"jax", "numpy"}),
    "_programs": ({"_axes", "batching"}, {"jax", "numpy"}),
    "_memory": ({"_programs"}, {"jax"}),
    "_contents": ({"_plan"}, {"numpy"}),
    "_store": ({"_checks", "_contents", "_plan", "_version"}, {"numpy", "xarray", "zarr"}),
    "_version": (set(), set()),
    "_hosts": (set(), {"jax", "numpy"}),
    "_work": ({"_checks", "_contents", "_memory", "_plan", "_programs", "_store"}, {"jax", "numpy"}),
    "labelled": ({"_axes", "_plan"}, {"jax", "jaxtyping", "numpy", "scipy", "xarray"}),
    "_agreement": ({"_contents", "_hosts", "_plan", "_store", "_work"}, {"jax"}),
    "_compute": ({"_hosts", "_plan", "_store", "_work"}, {"jax", "numpy", "tqdm"}),
    "sweep": (
        {"_agreement", "_checks", "_compute", "_plan", "_programs", "_store", "_work", "labelled"},
        {"jax", "numpy"},
    ),
    "_convex": (BASE | {"domains"}, ARRAYS),
    "comparators": (BASE | {"domains", "_convex"}, ARRAYS),
    "hindsight": (STEPS | {"comparators", "simulate"}, ARRAYS),
    "regret": (STEPS | {"hindsight", "simulate"}, ARRAYS),
    "bounds": ({"bounds"}, set()),
    "bounds.lipschitz": (FEEDS, ARRAYS),
    "bounds.static": (FEEDS | LAYOUTS | {"bounds"}, ARRAYS),
    "bounds.realised": (STEPS | {"bounds"}, ARRAYS),
    "particles": ({"particles"}, set()),
    **{f"particles.{name}": (BASE | {"particles"}, ARRAYS) for name in PARTICLES},
    "diagnostics": (STEPS | {"comparators", "hindsight", "regret", "simulate"}, ARRAYS),
    "plotting": (None, {"matplotlib", "networkx", "numpy", "jaxtyping", "scipy"}),
}


def imports(path):
    """Modules of damjax and top-level libraries that a file imports."""
    own, libraries = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"damjax.{a.name}" for a in node.names] if node.module == "damjax" else [node.module or ""]
        for name in names:
            top, _, rest = name.partition(".")
            if top == "damjax":
                own.add(rest.partition(".")[0])
            else:
                libraries.add(top)
    return own, libraries - set(__import__("sys").stdlib_module_names)


def module_name(path):
    """The dotted name below damjax; a package goes by its own name."""
    return (
        ".".join(part for part in path.relative_to(PACKAGE).with_suffix("").parts if part != "__init__") or "__init__"
    )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_imports_go_one_way(path):
    modules, libraries = ALLOWED[module_name(path)]
    own, used = imports(path)
    assert used <= libraries
    if modules is not None:
        assert own <= modules


def test_the_figures_use_the_public_library_only():
    for path in (PACKAGE.parent / "paper_figs").rglob("*.py"):
        own, _ = imports(path)
        assert not any(name.startswith("_") for name in own)


def rounding_products(path):
    """Lines with a product that a GPU would round: jax's, of no stated precision. NumPy does not."""
    tree = ast.parse(path.read_text())
    named = {"einsum", "matmul", "dot", "vdot", "tensordot", "inner", "dot_general", "convolve"}
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            yield node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in named:
            of_jax = ast.unparse(node.func.value) in {"jnp", "lax", "jax.lax", "jax.numpy"}
            if of_jax and "precision" not in {keyword.arg for keyword in node.keywords}:
                yield node.lineno


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_products_keep_the_precision_of_their_dtype(path):
    if module_name(path) not in {"routing", "diagnostics"}:  # on the host, in NumPy
        assert not list(rounding_products(path))


def test_a_rounding_product_is_found(tmp_path):
    source = tmp_path / "source.py"
    source.write_text(
        "a @ b\njnp.einsum('i,i', a, b)\nnp.dot(a, b)\njnp.vdot(a, b, precision=FULL)\njax.lax.dot(a, b)\n"
    )
    assert list(rounding_products(source)) == [1, 2, 5]

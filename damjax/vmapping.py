"""``vmap_last``: jax.vmap with the mapped axis kept last in memory.

jax.vmap puts the mapped axis first. A batch of small runs then ends in axes of length five or ten, too short for the
vector units of a CPU, and every loop over them is scalar. With the runs last, each operation of one run becomes the
same operation on a contiguous row of runs, and the whole batch costs a fraction.

The transformation traces the function for one run and evaluates its jaxpr on arrays with the runs behind. Operations
that name axes by their position from the front carry over nearly as they are. All others fall back on their own
jax.vmap rule, between two transpositions: every function is mapped correctly, and the common ones fast.

What a jaxpr holds is not promised by jax. So a rule says which parameters of its operation it has accounted for, and
an equation with any other one, from another release, say, goes by its own jax.vmap rule too.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

__all__ = ["vmap_last"]


class Value(NamedTuple):
    """An intermediate of the mapped function: with a trailing axis of runs, or the same for all runs."""

    array: Any
    mapped: bool


Apply = Callable[[JaxprEqn, list[Value], int], list[Value]]


class Rule(NamedTuple):
    """How an operation of one run is made one of all runs.

    Attributes:
        apply: from the equation, its operands and the number of runs to its results.
        reads: the parameters that ``apply`` needs to be there.
        ignores: parameters that may have any value: passed on, or without influence on the results. All others must
            be trivial.
    """

    apply: Apply
    reads: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()


def vmap_last(fun: Callable[..., Any], in_axes: int | Sequence[int | None] = 0) -> Callable[..., Any]:
    """Map ``fun`` over one axis of its arguments, as jax.vmap does, with that axis last in memory.

    Args:
        fun: any function that jax.vmap maps; arguments and results are pytrees of arrays.
        in_axes: the axis of the runs, 0 or -1, or None where all runs share the argument: one for all arguments, or a
            sequence with one per positional argument. Large arguments are best made with the runs last (-1): they
            are taken as they are, without a transposition.

    Returns:
        The mapped function; results carry the runs in front. It may be jitted and differentiated.

    Raises:
        ValueError: axes other than 0, -1 and None, or arguments of different lengths.

    Note:
        The larger the batch and the smaller one run, the more there is to gain; on a GPU, use jax.vmap.

    Example:
        >>> x = jnp.arange(6.0).reshape(3, 2)
        >>> vmap_last(lambda row, scale: scale * row.sum(), in_axes=(0, None))(x, 2.0).tolist()
        [2.0, 10.0, 18.0]
    """
    places = tuple(in_axes) if isinstance(in_axes, Sequence) else (in_axes,)
    if not callable(fun):
        raise ValueError(f"fun must be a function, but it is {fun!r}")
    if not all(place is None or (isinstance(place, int) and place in (0, -1)) for place in places):
        raise ValueError(f"in_axes must be 0, -1 or None for each argument, but it is {in_axes!r}")

    def mapped(*args: Any) -> Any:
        axes = places if isinstance(in_axes, Sequence) else places * len(args)
        if len(axes) != len(args) or all(axis is None for axis in axes):
            raise ValueError(
                f"in_axes must be 0, -1 or None for each of {len(args)} arguments, and not None for all, but it is"
                f" {in_axes}"
            )
        chosen = [jax.tree.map(jnp.asarray, arg) for axis, arg in zip(axes, args, strict=True) if axis is not None]
        leaves, structure = jax.tree.flatten(chosen)
        ends = [axis for axis, arg in zip(axes, args, strict=True) if axis is not None for _ in jax.tree.leaves(arg)]
        size = _common_length(leaves, ends)
        if size == 0:
            return jax.vmap(fun, axes)(*args)

        def one(*mapped_args: Any) -> Any:
            # As under jax.vmap, arguments that are not mapped stay as they are: static where they were.
            rest = iter(mapped_args)
            return fun(*(arg if axis is None else next(rest) for axis, arg in zip(axes, args, strict=True)))

        arrays = [_runs_last(leaf) if place == 0 else leaf for leaf, place in zip(leaves, ends, strict=True)]
        # Not shapes and dtypes alone: inside jax.shard_map, types say over which devices an array varies.
        examples = [jax.eval_shape(lambda array: lax.index_in_dim(array, 0, -1, False), array) for array in arrays]
        closed, result = jax.make_jaxpr(one, return_shape=True)(*jax.tree.unflatten(structure, examples))
        outs = _evaluate(closed, [Value(array, mapped=True) for array in arrays], size)
        return jax.tree.unflatten(jax.tree.structure(result), [_runs_first(_spread(out, size)) for out in outs])

    return functools.wraps(fun)(mapped)


def rule_of(eqn: JaxprEqn) -> Rule | None:
    """The rule by which an equation goes; None where it goes by its own jax.vmap rule."""
    rule = RULES.get(eqn.primitive.name)
    if rule is None or not all(name in eqn.params for name in rule.reads):
        return None
    others = (value for name, value in eqn.params.items() if name not in (*rule.reads, *rule.ignores))
    return rule if all(map(_is_trivial, others)) else None


def _is_trivial(value: Any) -> bool:
    """Whether a parameter asks for nothing: None, False, no entries, or a sharding or layout left to the compiler."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_trivial, value))
    return value is None or value is False or type(value).__name__ == "UnspecifiedValue"


def _common_length(leaves: list[jax.Array], places: list[int]) -> int:
    """How many runs there are, which every mapped array must agree on."""
    shapes = [leaf.shape for leaf in leaves]
    if () in shapes or len({shape[place] for shape, place in zip(shapes, places, strict=True)}) != 1:
        raise ValueError(f"mapped arguments must have one common leading length, but their shapes are {shapes}")
    return shapes[0][places[0]]


def _runs_last(array: jax.Array) -> jax.Array:
    """``jnp.moveaxis(array, 0, -1)``."""
    size, *shape = array.shape
    return jnp.moveaxis(array.reshape(size, *_blocks(shape)), 0, -1).reshape(*shape, size)


def _runs_first(array: jax.Array) -> jax.Array:
    """``jnp.moveaxis(array, -1, 0)``."""
    *shape, size = array.shape
    return jnp.moveaxis(array.reshape(*_blocks(shape), size), -1, 0).reshape(size, *shape)


def _blocks(shape: Sequence[int]) -> tuple[int, int]:
    """The shape of one run's array as (number of blocks, length of a block).

    XLA transposes axis by axis. Over the short axes of one run it would fetch a line of memory anew for every number
    in it; over blocks of the length of a line or two it uses all of a line at once.
    """
    length = math.prod(shape)
    block = max(block for block in range(1, 33) if length % block == 0)
    return length // block, block


def _evaluate(closed: ClosedJaxpr, inputs: Sequence[Value], size: int) -> list[Value]:
    """The results of a jaxpr of one run, for all runs."""
    jaxpr: Jaxpr = closed.jaxpr
    if any(_is_reference(var) for eqn in jaxpr.eqns for var in eqn.outvars):
        return _whole(closed, inputs, size)
    environment = dict(zip(jaxpr.constvars, (Value(_array(const), False) for const in closed.consts), strict=True))
    environment |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        return Value(_array(atom.val), False) if isinstance(atom, Literal) else environment[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        # What the function had switched on around the operation, such as another way to draw bits.
        with eqn.ctx.manager:
            if any(operand.mapped for operand in operands):
                rule = rule_of(eqn)
                outputs = (_fallback if rule is None else rule.apply)(eqn, operands, size)
            else:
                outputs = [Value(out, False) for out in _bind(eqn, *(operand.array for operand in operands))]
        environment |= dict(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _array(constant: Any) -> Any:
    """A constant of a jaxpr as operations take it: one with axes may be NumPy's, which no tracer can index."""
    return jnp.asarray(constant) if isinstance(constant, np.ndarray) and constant.ndim else constant


def _is_reference(var: Any) -> bool:
    """Whether it stands for a mutable array."""
    return hasattr(var.aval, "inner_aval")


def _whole(closed: ClosedJaxpr, inputs: Sequence[Value], size: int) -> list[Value]:
    """A function with mutable arrays of its own: no equation alone shows whether they are mapped."""
    axes = tuple(0 if value.mapped else None for value in inputs)
    arrays = [_runs_first(value.array) if value.mapped else value.array for value in inputs]
    outs = jax.vmap(jaxpr_as_fun(closed), in_axes=axes, axis_size=size)(*arrays)
    return [Value(_runs_last(out), True) for out in outs]


def _bind(eqn: JaxprEqn, *arrays: Any) -> list[Any]:
    """The primitive itself, always with a list of results."""
    params = eqn.primitive.get_bind_params(eqn.params)
    # Releases of jax before 0.10 split off the functions that a primitive takes.
    functions, params = params if isinstance(params, tuple) else ((), params)
    out = eqn.primitive.bind(*functions, *arrays, **params)
    return out if eqn.primitive.multiple_results else [out]


def _result_shape(eqn: JaxprEqn) -> tuple[int, ...]:
    """The shape of the (first) result, for one run."""
    return _shape(eqn.outvars[0])


def _shape(atom: Any) -> tuple[int, ...]:
    """The shape of an operand or result, for one run."""
    return atom.aval.shape


def _spread(value: Value, size: int, shape: tuple[int, ...] | None = None) -> jax.Array:
    """The value with a trailing axis of runs behind its shape, or behind ``shape``, to which it is broadcast."""
    array = jnp.asarray(value.array)
    own = array.shape[:-1] if value.mapped else array.shape
    target = own if shape is None else shape
    if value.mapped and own == target:
        return array
    places = tuple(range(len(own)))
    return lax.broadcast_in_dim(array, (*target, size), (*places, len(target)) if value.mapped else places)


def _fallback(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    axes = tuple(-1 if operand.mapped else None for operand in operands)
    apply = jax.vmap(functools.partial(_bind, eqn), in_axes=axes, out_axes=-1, axis_size=size)
    return [Value(out, True) for out in apply(*(operand.array for operand in operands))]


def _custom_vmap(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    """By its own jax.vmap rule; one that gives the same result for all runs gives it once."""
    axes = tuple(-1 if operand.mapped else None for operand in operands)
    arrays = [operand.array for operand in operands]
    try:
        # jax.vmap alone knows whether results differ from run to run, and refuses to give them once if they do.
        outs = jax.vmap(functools.partial(_bind, eqn), in_axes=axes, out_axes=None, axis_size=size)(*arrays)
    except ValueError:
        return _fallback(eqn, operands, size)
    return [Value(out, False) for out in outs]


def _elementwise(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    """Operands of one shape, with ones in it, or scalars."""
    shape = _result_shape(eqn)
    return [Value(out, True) for out in _bind(eqn, *(_spread(operand, size, shape) for operand in operands))]


def _same_axes(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    """Parameters that name axes from the front mean the same with one axis more behind."""
    return [Value(out, True) for out in _bind(eqn, *(_spread(operand, size) for operand in operands))]


def _broadcast_in_dim(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    return [Value(lax.broadcast_in_dim(operands[0].array, (*shape, size), (*places, len(shape))), True)]


def _reshape(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    array, order = operands[0].array, eqn.params["dimensions"]
    if order is not None:
        array = array.transpose(*order, len(order))
    return [Value(array.reshape(*eqn.params["new_sizes"], size), True)]


def _transpose(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    order = eqn.params["permutation"]
    return [Value(operands[0].array.transpose(*order, len(order)), True)]


def _slice(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    start, stop, strides = (eqn.params[name] for name in ("start_indices", "limit_indices", "strides"))
    strides = None if strides is None else (*strides, 1)
    return [Value(lax.slice(operands[0].array, (*start, 0), (*stop, size), strides), True)]


def _dynamic_slice(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    operand, *indices = operands
    if any(index.mapped for index in indices):
        return _fallback(eqn, operands, size)
    start = _with_first_run(indices)
    return [Value(lax.dynamic_slice(operand.array, start, (*eqn.params["slice_sizes"], size)), True)]


def _dynamic_update_slice(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    operand, update, *indices = operands
    if any(index.mapped for index in indices):
        return _fallback(eqn, operands, size)
    start = _with_first_run(indices)
    return [Value(lax.dynamic_update_slice(_spread(operand, size), _spread(update, size), start), True)]


def _with_first_run(indices: list[Value]) -> list[Any]:
    """Start indices, which must be of one type, and a zero for the axis of the runs."""
    start = [index.array for index in indices]
    return [*start, jnp.zeros_like(start[0]) if start else 0]


def _gather(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    operand, indices = operands
    if indices.mapped:
        return _fallback(eqn, operands, size)
    params = dict(eqn.params)
    numbers = params["dimension_numbers"]
    rank = len(_result_shape(eqn))
    params["dimension_numbers"] = numbers._replace(offset_dims=(*numbers.offset_dims, rank))
    params["slice_sizes"] = (*params["slice_sizes"], size)
    return [Value(eqn.primitive.bind(operand.array, indices.array, **params), True)]


def _scatter(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    operand, indices, updates = operands
    if indices.mapped:
        return _fallback(eqn, operands, size)
    params = dict(eqn.params)
    numbers = params["dimension_numbers"]
    rank = len(_shape(eqn.invars[2]))
    params["dimension_numbers"] = numbers._replace(update_window_dims=(*numbers.update_window_dims, rank))
    arrays = (_spread(operand, size), indices.array, _spread(updates, size))
    return [Value(eqn.primitive.bind(*arrays, **params), True)]


def _call(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    return _evaluate(eqn.params["jaxpr"], operands, size)


def _checkpoint(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    flags, prevent_cse = [operand.mapped for operand in operands], eqn.params["prevent_cse"]
    inside, out_flags = ClosedJaxpr(eqn.params["jaxpr"], ()), []

    def run(*arrays: Any) -> list[Any]:
        if prevent_cse and eqn.params["differentiated"]:
            # The second time around nothing may be taken from the first, or there would be no memory saved.
            arrays = lax.optimization_barrier(arrays)
        outs = _evaluate(inside, [Value(*pair) for pair in zip(arrays, flags, strict=True)], size)
        out_flags[:] = [out.mapped for out in outs]
        return [out.array for out in outs]

    again = jax.checkpoint(run, prevent_cse=prevent_cse, policy=eqn.params["policy"])
    outs = again(*(operand.array for operand in operands))
    return [Value(*pair) for pair in zip(outs, out_flags, strict=True)]


def _cond(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    index, *rest = operands
    if index.mapped:
        return _fallback(eqn, operands, size)
    flags = [operand.mapped for operand in rest]

    def branch(closed: ClosedJaxpr) -> Callable[..., list[jax.Array]]:
        def run(*arrays: Any) -> list[jax.Array]:
            outs = _evaluate(closed, [Value(*pair) for pair in zip(arrays, flags, strict=True)], size)
            return [_spread(out, size) for out in outs]

        return run

    outs = lax.switch(index.array, [branch(b) for b in eqn.params["branches"]], *(operand.array for operand in rest))
    return [Value(out, True) for out in outs]


def _scan(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    if eqn.params["length"] == 0:
        return _fallback(eqn, operands, size)
    consts, start, slices = _split_scan(eqn, operands)
    num_carry = len(start)
    # xs keep their leading time axis, so a slice of a mapped one has its runs behind too.
    slice_flags = [operand.mapped for operand in slices]
    carry_flags = [operand.mapped for operand in start]
    out_flags: list[bool] = []

    def body(carry: list[Any], current: list[Any]) -> tuple[list[Any], list[Any]]:
        carried = [Value(*pair) for pair in zip(carry, carry_flags, strict=True)]
        sliced = [Value(*pair) for pair in zip(current, slice_flags, strict=True)]
        outs = _evaluate(eqn.params["jaxpr"], [*consts, *carried, *sliced], size)
        out_flags[:] = [out.mapped for out in outs]
        after = [_spread(out, size) if flag else out.array for out, flag in zip(outs, carry_flags, strict=False)]
        return after, [out.array for out in outs[num_carry:]]

    def initial() -> list[Any]:
        return [_spread(v, size) if flag else v.array for v, flag in zip(start, carry_flags, strict=True)]

    settings = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    arrays = [operand.array for operand in slices]
    # What is mapped at the end of a step must be so at its start: one pass more for each carry that this reveals.
    while True:
        current = [jax.eval_shape(lambda x: lax.index_in_dim(x, 0, 0, False), array) for array in arrays]
        jax.eval_shape(body, initial(), current)
        grown = [flag or out for flag, out in zip(carry_flags, out_flags, strict=False)]
        if grown == carry_flags:
            break
        carry_flags = grown
    final, stacked = lax.scan(body, initial(), arrays, **settings)
    flags = [*carry_flags, *out_flags[num_carry:]]
    return [Value(*pair) for pair in zip([*final, *stacked], flags, strict=True)]


def _split_scan(eqn: JaxprEqn, operands: list[Value]) -> tuple[list[Value], list[Value], list[Value]]:
    """A scan's constants, carry and slices, told apart by shape.

    Slices are the last operands, and stacked results the last results, that have an axis more than in the body.
    """
    body: Jaxpr = eqn.params["jaxpr"].jaxpr
    sliced = [len(_shape(out)) > len(_shape(of)) for out, of in zip(eqn.invars, body.invars, strict=True)]
    stacked = [len(_shape(out)) > len(_shape(of)) for out, of in zip(eqn.outvars, body.outvars, strict=True)]
    num_carry, first_slice = len(stacked) - sum(stacked), len(sliced) - sum(sliced)
    num_consts = first_slice - num_carry
    return operands[:num_consts], operands[num_consts:first_slice], operands[first_slice:]


_ELEMENTWISE = (
    "abs add and atan2 cbrt ceil clamp convert_element_type copy cos cosh div eq erf erf_inv exp exp2 expm1 floor ge gt"
    " integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow rem round rsqrt"
    " select_n sign sin sinh sqrt square sub tan tanh xor"
)
_ELEMENTWISE_PARAMS = ("accuracy", "new_dtype", "weak_type", "y", "rounding_method")
_ALONG_AXES = {
    "squeeze": ("dimensions",),
    "concatenate": ("dimension",),
    "rev": ("dimensions",),
    **{f"reduce_{name}": ("axes",) for name in ("sum", "max", "min", "prod", "and", "or")},
    **{f"cum{name}": ("axis", "reverse") for name in ("sum", "prod", "max", "min")},
}
_GATHER_PARAMS = ("unique_indices", "indices_are_sorted", "mode", "fill_value")
_SCATTER_PARAMS = ("unique_indices", "indices_are_sorted", "mode", "update_jaxpr", "update_consts")
RULES: dict[str, Rule] = {
    **{name: Rule(_elementwise, ignores=_ELEMENTWISE_PARAMS) for name in _ELEMENTWISE.split()},
    **{name: Rule(_same_axes, params) for name, params in _ALONG_AXES.items()},
    "broadcast_in_dim": Rule(_broadcast_in_dim, ("shape", "broadcast_dimensions")),
    "reshape": Rule(_reshape, ("new_sizes", "dimensions")),
    "transpose": Rule(_transpose, ("permutation",)),
    "slice": Rule(_slice, ("start_indices", "limit_indices", "strides")),
    "dynamic_slice": Rule(_dynamic_slice, ("slice_sizes",)),
    "dynamic_update_slice": Rule(_dynamic_update_slice),
    "gather": Rule(_gather, ("dimension_numbers", "slice_sizes"), _GATHER_PARAMS),
    **{name: Rule(_scatter, ("dimension_numbers",), _SCATTER_PARAMS) for name in ("scatter-add", "scatter")},
    "jit": Rule(_call, ("jaxpr",), ("donated_invars", "ctx_mesh", "name", "keep_unused", "inline")),
    "remat2": Rule(_checkpoint, ("jaxpr", "prevent_cse", "policy", "differentiated")),
    "custom_vmap_call": Rule(_custom_vmap, ignores=("call", "rule", "in_tree", "out_tree", "name")),
    "cond": Rule(_cond, ("branches",)),
    "scan": Rule(
        _scan,
        ("jaxpr", "length", "reverse", "unroll"),
        ("num_consts", "num_carry", "linear", "ft_in", "ft_out"),
    ),
}

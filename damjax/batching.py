"""``vmap_last``: jax.vmap with the mapped axis kept last in memory.

jax.vmap puts the mapped axis first. A batch of small runs then ends in axes of length five or ten, too short for the
vector units of a CPU, and every loop over them is scalar. With the runs last, each operation of one run becomes the
same operation on a contiguous row of runs, and the whole batch costs a fraction.

The transformation traces the function for one run and evaluates its jaxpr on arrays with the runs behind. Operations
that name axes by their position from the front carry over nearly as they are. All others fall back on their own
jax.vmap rule, between two transpositions: every function is mapped correctly, and the common ones fast.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal


class Value(NamedTuple):
    """An intermediate of the mapped function: with a trailing axis of runs, or the same for all runs."""

    array: Any
    mapped: bool


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

    def mapped(*args: Any) -> Any:
        axes = tuple(in_axes) if isinstance(in_axes, Sequence) else (in_axes,) * len(args)
        if len(axes) != len(args) or any(axis not in (0, -1, None) for axis in axes):
            raise ValueError(f"in_axes must be 0, -1 or None for each of {len(args)} arguments, but it is {in_axes}")
        chosen = [jax.tree.map(jnp.asarray, arg) for axis, arg in zip(axes, args, strict=True) if axis is not None]
        leaves, structure = jax.tree.flatten(chosen)
        places = [axis for axis, arg in zip(axes, args, strict=True) if axis is not None for _ in jax.tree.leaves(arg)]
        size = _common_length(leaves, places)

        def one(*mapped_args: Any) -> Any:
            # As under jax.vmap, arguments that are not mapped stay as they are: static where they were.
            rest = iter(mapped_args)
            return fun(*(arg if axis is None else next(rest) for axis, arg in zip(axes, args, strict=True)))

        arrays = [_runs_last(leaf) if place == 0 else leaf for leaf, place in zip(leaves, places, strict=True)]
        examples = [jax.ShapeDtypeStruct(array.shape[:-1], array.dtype) for array in arrays]
        closed, result = jax.make_jaxpr(one, return_shape=True)(*jax.tree.unflatten(structure, examples))
        outs = _evaluate(closed, [Value(array, mapped=True) for array in arrays], size)
        return jax.tree.unflatten(jax.tree.structure(result), [_runs_first(_spread(out, size)) for out in outs])

    return functools.wraps(fun)(mapped)


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
    known = dict(zip(jaxpr.constvars, (Value(const, False) for const in closed.consts), strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        return Value(atom.val, False) if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if any(operand.mapped for operand in operands):
            rule = _RULES.get(eqn.primitive.name, _fallback)
            outputs = rule(eqn, operands, size)
        else:
            outputs = [Value(out, False) for out in _bind(eqn, *(operand.array for operand in operands))]
        known |= dict(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bind(eqn: JaxprEqn, *arrays: Any) -> list[Any]:
    """The primitive itself, always with a list of results."""
    params = eqn.primitive.get_bind_params(eqn.params)
    # Releases of jax before 0.10 split off the functions that a primitive takes.
    functions, params = params if isinstance(params, tuple) else ((), params)
    out = eqn.primitive.bind(*functions, *arrays, **params)
    return out if eqn.primitive.multiple_results else [out]


def _result_shape(eqn: JaxprEqn) -> tuple[int, ...]:
    """The shape of the (first) result, for one run."""
    aval: Any = eqn.outvars[0].aval
    return aval.shape


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
    return [Value(operands[0].array.reshape(*eqn.params["new_sizes"], size), True)]


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


def _call(eqn: JaxprEqn, operands: list[Value], size: int) -> list[Value]:
    return _evaluate(eqn.params["jaxpr"], operands, size)


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
    num_consts, num_carry = eqn.params["num_consts"], eqn.params["num_carry"]
    consts, start, slices = (
        operands[:num_consts],
        operands[num_consts : num_consts + num_carry],
        operands[num_consts + num_carry :],
    )
    # xs keep their leading time axis, so a slice of a mapped one has its runs behind too.
    slice_flags = [operand.mapped for operand in slices]
    carry_flags = [operand.mapped for operand in start]
    out_flags: list[bool] = []

    def body(carry: list[Any], current: list[Any]) -> tuple[list[Any], list[Any]]:
        carried = [Value(*pair) for pair in zip(carry, carry_flags, strict=True)]
        seen = [Value(*pair) for pair in zip(current, slice_flags, strict=True)]
        outs = _evaluate(eqn.params["jaxpr"], [*consts, *carried, *seen], size)
        out_flags[:] = [out.mapped for out in outs]
        after = [_spread(out, size) if flag else out.array for out, flag in zip(outs, carry_flags, strict=False)]
        return after, [out.array for out in outs[num_carry:]]

    def initial() -> list[Any]:
        return [_spread(v, size) if flag else v.array for v, flag in zip(start, carry_flags, strict=True)]

    settings = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    arrays = [operand.array for operand in slices]
    # What is mapped at the end of a step must be so at its start: one pass more for each carry that this reveals.
    while True:
        current = [jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in arrays]
        jax.eval_shape(body, initial(), current)
        grown = [flag or out for flag, out in zip(carry_flags, out_flags, strict=False)]
        if grown == carry_flags:
            break
        carry_flags = grown
    final, stacked = lax.scan(body, initial(), arrays, **settings)
    flags = [*carry_flags, *out_flags[num_carry:]]
    return [Value(*pair) for pair in zip([*final, *stacked], flags, strict=True)]


_ELEMENTWISE = (
    "abs add and atan2 cbrt ceil clamp convert_element_type copy cos cosh div eq erf erf_inv exp exp2 expm1 floor ge gt"
    " integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow rem round rsqrt"
    " select_n sign sin sinh sqrt square sub tan tanh xor"
)
_SAME_AXES = (
    "squeeze concatenate rev reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or"
    " cumsum cumprod cummax cummin"
)
_RULES: dict[str, Callable[[JaxprEqn, list[Value], int], list[Value]]] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_SAME_AXES.split(), _same_axes),
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "jit": _call,
    "pjit": _call,
    "cond": _cond,
    "scan": _scan,
}

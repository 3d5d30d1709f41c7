"""Products with symmetric matrices on the host, computed by reading half of a matrix and using every entry twice.

The speed of a product with a few vectors is limited by the time it takes to read the matrix. BLAS has no routine that
reads half of a symmetric matrix once for several vectors: symm copies the whole matrix, and symv reads half of the
matrix again for every vector. The innermost loop is therefore written in LLVM IR and compiled for the host processor.
It multiplies ROWS rows by TOGETHER vectors at a time, keeping row sums in registers and column sums in the cache.
"""

import ctypes
from collections.abc import Callable
from functools import cache, reduce
from operator import iadd
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.kernels._machine import machine_code
from lazynet.kernels._threads import in_threads

ROWS = 8  # number of rows whose sums are held in registers
TOGETHER = 8  # number of vectors that are processed each time a matrix entry is read
CHUNK = 2048  # columns per pass over the rows of a strip, few enough that vector entries and column sums stay in cache
STRIP = 128  # rows per strip; strips are assigned in turn to the lanes, which are processed in parallel
LANES, ROWS_PER_LANE = 4, 2048  # minimum number of parallel lanes, and number of rows per lane for larger matrices

VECTOR = f"<{TOGETHER} x double>"
ADD = f"call {VECTOR} @llvm.fmuladd.v{TOGETHER}f64"
LOAD = {
    "float64": "%entry{i} = load double, ptr %at{i}",
    "float32": "%narrow{i} = load float, ptr %at{i}\n  %entry{i} = fpext float %narrow{i} to double",
}
TYPE = {"float64": "double", "float32": "float"}


def _assembly(dtype: str) -> str:
    """Return the LLVM IR of `meet`, which computes above += block @ right and below += block.T @ left for one lane.

    A lane consists of equally spaced strips of STRIP rows each.

    The arguments of `meet` are, in order, the address of the block, the distance in entries between its rows, its
    number of rows (a multiple of ROWS), its number of columns, the first row of the lane, the distance in rows between
    strips of the lane, a flag, and the addresses of right, left, above and below. If the flag is 1, the function skips
    the ROWS x ROWS squares on the diagonal and everything to the left of them; if the flag is 0, nothing is skipped.
    """

    def for_each_row(line: Callable[[int], str]) -> str:
        return "\n".join(line(i) for i in range(ROWS))

    return f"""
declare {VECTOR} @llvm.fmuladd.v{TOGETHER}f64({VECTOR}, {VECTOR}, {VECTOR})
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)

define void @meet(ptr %block, i64 %stride, i64 %rows, i64 %columns, i64 %lane, i64 %step, i64 %triangle,
                  ptr %right, ptr %left, ptr %above, ptr %below) {{
start:
  br label %strip

strip:
  %top = phi i64 [%lane, %start], [%top.next, %strip.end]
  %top.far = add i64 %top, {STRIP}
  %bottom = call i64 @llvm.smin.i64(i64 %top.far, i64 %rows)
  %chunks.first = mul i64 %top, %triangle
  br label %chunk

chunk:
  %first = phi i64 [%chunks.first, %strip], [%last, %chunk.end]
  %first.far = add i64 %first, {CHUNK}
  %last = call i64 @llvm.smin.i64(i64 %first.far, i64 %columns)
  br label %group

group:
  %i = phi i64 [%top, %chunk], [%i.next, %group.end]
  %i.next = add i64 %i, {ROWS}
  %right.of.square = mul i64 %i.next, %triangle
  %j.first = call i64 @llvm.smax.i64(i64 %first, i64 %right.of.square)
  %any = icmp slt i64 %j.first, %last
  br i1 %any, label %row, label %group.end

row:
{
        for_each_row(
            lambda i: (
                f'''
  %row{i} = add i64 %i, {i}
  %offset{i} = mul i64 %row{i}, %stride
  %line{i} = getelementptr {TYPE[dtype]}, ptr %block, i64 %offset{i}
  %left.at{i} = getelementptr {VECTOR}, ptr %left, i64 %row{i}
  %left{i} = load {VECTOR}, ptr %left.at{i}, align 8'''
            )
        )
    }
  br label %column

column:
  %j = phi i64 [%j.first, %row], [%j.next, %column]
{for_each_row(lambda i: f"  %sum{i} = phi {VECTOR} [zeroinitializer, %row], [%sum.next{i}, %column]")}
  %right.at = getelementptr {VECTOR}, ptr %right, i64 %j
  %right.j = load {VECTOR}, ptr %right.at, align 8
  %below.at = getelementptr {VECTOR}, ptr %below, i64 %j
  %below0 = load {VECTOR}, ptr %below.at, align 8
{
        for_each_row(
            lambda i: (
                f'''
  %at{i} = getelementptr {TYPE[dtype]}, ptr %line{i}, i64 %j
  {LOAD[dtype].format(i=i)}
  %one{i} = insertelement {VECTOR} poison, double %entry{i}, i32 0
  %all{i} = shufflevector {VECTOR} %one{i}, {VECTOR} poison, <{TOGETHER} x i32> zeroinitializer
  %sum.next{i} = {ADD}({VECTOR} %all{i}, {VECTOR} %right.j, {VECTOR} %sum{i})
  %below{i + 1} = {ADD}({VECTOR} %all{i}, {VECTOR} %left{i}, {VECTOR} %below{i})'''
            )
        )
    }
  store {VECTOR} %below{ROWS}, ptr %below.at, align 8
  %j.next = add i64 %j, 1
  %more.columns = icmp slt i64 %j.next, %last
  br i1 %more.columns, label %column, label %row.end

row.end:
{
        for_each_row(
            lambda i: (
                f'''
  %above.at{i} = getelementptr {VECTOR}, ptr %above, i64 %row{i}
  %above{i} = load {VECTOR}, ptr %above.at{i}, align 8
  %above.next{i} = fadd {VECTOR} %above{i}, %sum.next{i}
  store {VECTOR} %above.next{i}, ptr %above.at{i}, align 8'''
            )
        )
    }
  br label %group.end

group.end:
  %more.groups = icmp slt i64 %i.next, %bottom
  br i1 %more.groups, label %group, label %chunk.end

chunk.end:
  %more.chunks = icmp slt i64 %last, %columns
  br i1 %more.chunks, label %chunk, label %strip.end

strip.end:
  %top.next = add i64 %top, %step
  %more.strips = icmp slt i64 %top.next, %rows
  br i1 %more.strips, label %strip, label %end

end:
  ret void
}}
"""


class _Compiled(NamedTuple):
    """The compiled function `meet`, and the engine that must be kept alive because it owns the machine code."""

    meet: Callable[..., None]
    engine: Any


@cache
def _compiled(dtype: str) -> _Compiled:
    """Compile `meet` for entries of the given dtype."""
    engine = machine_code(_assembly(dtype))
    # ctypes releases Python's global interpreter lock during the call.
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 11)
    return _Compiled(prototype(engine.get_function_address("meet")), engine)


def half_products(
    block: Float[np.ndarray, "r c"],
    right: Float[np.ndarray, "c k"],
    left: Float[np.ndarray, "r k"] | None = None,
    rows_per_lane: int = ROWS_PER_LANE,
) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, "c k"]]:
    """Compute block @ right and block.T @ left in float64.

    Args:
        block: Matrix of shape (r, c) in float32 or float64 with contiguous rows.
        right: Vectors of shape (c, k).
        left: Vectors of shape (r, k). If None, the block must be symmetric, and entries to the left of the
            ROWS x ROWS squares on the diagonal are not read.
        rows_per_lane: Number of rows in each lane (the lanes are processed in parallel). Used only if it results in
            more lanes than the minimum.

    Returns:
        The two products, with shapes (r, k) and (c, k). If `left` is None, two arrays whose sum is block @ right.

    Raises:
        ValueError: If the shapes do not match, or if the block has an unsupported dtype or layout.
    """
    _check(block, right, left)
    symmetric, k = left is None, right.shape[1]
    compiled, grouped = _compiled(block.dtype.name), len(block) // ROWS * ROWS
    right_rows = _packed(right)
    left_rows = right_rows if left is None else _packed(left)
    above_rows = np.zeros_like(left_rows)
    # Each lane has its own column sums, so results do not depend on the number of threads.
    lanes = min(max(LANES, len(block) // rows_per_lane), -(-grouped // STRIP))
    block_at = block.ctypes.data, block.strides[0] // block.itemsize, grouped, block.shape[1]

    def lane(start: int) -> np.ndarray:
        """Multiply the rows of a lane by the vectors, and return their contribution to the column sums."""
        below = np.zeros_like(right_rows)
        for vectors in zip(right_rows, left_rows, above_rows, below, strict=True):
            addresses = (array.ctypes.data for array in vectors)
            compiled.meet(*block_at, start, lanes * STRIP, int(symmetric), *addresses)
        return below

    column_sums = in_threads(lane, range(0, lanes * STRIP, STRIP))
    below = _unpacked(reduce(iadd, column_sums, np.zeros_like(right_rows)), k)
    above = _unpacked(above_rows, k)
    if left is None:
        step, entry = block.strides
        strides = ROWS * (step + entry), step, entry
        squares = np.lib.stride_tricks.as_strided(block, (grouped // ROWS, ROWS, ROWS), strides).astype(np.float64)
        above[:grouped] += (squares @ right[:grouped].reshape(grouped // ROWS, ROWS, k)).reshape(grouped, k)
        above[grouped:] += block[grouped:, grouped:].astype(np.float64) @ right[grouped:]
    else:
        rest = block[grouped:].astype(np.float64)
        above[grouped:] += rest @ right
        below += rest.T @ left[grouped:]
    return above, below


def _check(block: np.ndarray, right: np.ndarray, left: np.ndarray | None) -> None:
    # Without these checks, the machine code could read out of bounds or misinterpret the entries.
    rows = right if left is None else left
    if block.shape != (len(rows), len(right)) or rows.shape != (len(rows), right.shape[1]):
        shapes = f"{right.shape}" if left is None else f"{right.shape} and {rows.shape}"
        raise ValueError(f"block must have a shape that matches vectors of shape {shapes}, got shape {block.shape}.")
    if block.dtype not in (np.float64, np.float32):
        raise ValueError(f"block must have dtype float64 or float32, got {block.dtype.str}.")
    if block.size and block.strides[1] != block.itemsize:
        raise ValueError(f"block must have contiguous rows, got strides {block.strides}.")


def _packed(v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "groups n together"]:
    """Split the vectors into groups of TOGETHER vectors, and pad the last group with zeros."""
    groups = -(-v.shape[1] // TOGETHER)
    result = np.zeros((groups, len(v), TOGETHER))
    for i in range(groups):
        part = v[:, i * TOGETHER : (i + 1) * TOGETHER]
        result[i, :, : part.shape[1]] = part
    return result


def _unpacked(groups: Float[np.ndarray, "groups n together"], k: int) -> Float[np.ndarray, "n k"]:
    return groups.swapaxes(0, 1).reshape(groups.shape[1], len(groups) * TOGETHER)[:, :k]

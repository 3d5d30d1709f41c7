"""Products with half of a symmetric matrix, on the host: every entry is read once and used twice.

A product with a few vectors should be over when the matrix has been read, and no library reads half of it once for
several vectors: BLAS's symm packs all of it, its symv reads half of it anew for each. So the innermost loop is our own,
given to LLVM for the processor at hand: ROWS rows meet TOGETHER vectors, sums along the rows in registers, those along
the columns in the cache.
"""

import ctypes
from collections.abc import Callable
from functools import cache, reduce
from operator import iadd
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lazynet.kernels._threads import in_threads

ROWS = 8  # whose sums are held in registers
TOGETHER = 8  # vectors that an entry meets when it is read
CHUNK = 2048  # columns that are met by one group of rows after the other: their vectors and sums stay in the cache
STRIP = 128  # rows of a lane, after which come those of the others
LANES, ROWS_PER_LANE = 4, 2048  # lanes at least, and more of them where they have so many rows

VECTOR = f"<{TOGETHER} x double>"
ADD = f"call {VECTOR} @llvm.fmuladd.v{TOGETHER}f64"
LOAD = {
    "float64": "%entry{i} = load double, ptr %at{i}",
    "float32": "%narrow{i} = load float, ptr %at{i}\n  %entry{i} = fpext float %narrow{i} to double",
}
TYPE = {"float64": "double", "float32": "float"}


def _assembly(dtype: str) -> str:
    """The function `meet` in LLVM's language: above += block right and below += block' left, for one lane's strips.

    Its arguments are the place of the block's first entry, the distance of its rows, the numbers of rows, a multiple of
    ROWS, and of columns; the lane's first row, and how far its strips are apart; 1 to leave out the squares of ROWS
    rows on the diagonal and all that is left of them, else 0; and the places of right, left, above and below.
    """

    def each(line: Callable[[int], str]) -> str:
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
        each(
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
{each(lambda i: f"  %sum{i} = phi {VECTOR} [zeroinitializer, %row], [%sum.next{i}, %column]")}
  %right.at = getelementptr {VECTOR}, ptr %right, i64 %j
  %right.j = load {VECTOR}, ptr %right.at, align 8
  %below.at = getelementptr {VECTOR}, ptr %below, i64 %j
  %below0 = load {VECTOR}, ptr %below.at, align 8
{
        each(
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
        each(
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
    """`meet`, and the engine that its machine code lives as long as."""

    meet: Callable[..., None]
    engine: Any


@cache
def _compiled(dtype: str) -> _Compiled:
    """`meet` for entries of this dtype, compiled for this processor in some hundredths of a second."""
    # Only here, because loading LLVM takes a while.
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_assembly(dtype)), machine)
    engine.finalize_object()
    # ctypes lets go of Python's lock for as long as a call lasts.
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 11)
    return _Compiled(prototype(engine.get_function_address("meet")), engine)


def half_products(
    block: Float[np.ndarray, "r c"], right: Float[np.ndarray, "c k"], left: Float[np.ndarray, "r k"] | None = None
) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, "c k"]]:
    """Block right and block' left, float64, for entries in float32 or float64 whose rows are contiguous.

    Without left the block is symmetric, and the two add up to block right; what is left of the squares of ROWS rows on
    its diagonal is not read.

    Raises:
        ValueError: if shapes do not fit, or the entries are not as above: machine code would not notice.
    """
    _check(block, right, left)
    symmetric, k = left is None, right.shape[1]
    compiled, whole = _compiled(block.dtype.name), len(block) // ROWS * ROWS
    right_rows = _packed(right)
    left_rows = right_rows if left is None else _packed(left)
    above_rows = np.zeros_like(left_rows)
    # Lanes sum up columns apart: as many threads at most, and the same sums however many there are.
    lanes = min(max(LANES, len(block) // ROWS_PER_LANE), -(-whole // STRIP))
    block_at = block.ctypes.data, block.strides[0] // block.itemsize, whole, block.shape[1]

    def lane(start: int) -> np.ndarray:
        """Multiply the lane's rows; what they add to the columns."""
        below = np.zeros_like(right_rows)
        for vectors in zip(right_rows, left_rows, above_rows, below, strict=True):
            places = (array.ctypes.data for array in vectors)
            compiled.meet(*block_at, start, lanes * STRIP, int(symmetric), *places)
        return below

    found = in_threads(lane, range(0, lanes * STRIP, STRIP))
    below = _unpacked(reduce(iadd, found, np.zeros_like(right_rows)), k)
    above = _unpacked(above_rows, k)
    if left is None:
        step, entry = block.strides
        strides = ROWS * (step + entry), step, entry
        squares = np.lib.stride_tricks.as_strided(block, (whole // ROWS, ROWS, ROWS), strides).astype(np.float64)
        above[:whole] += (squares @ right[:whole].reshape(whole // ROWS, ROWS, k)).reshape(whole, k)
        above[whole:] += block[whole:, whole:].astype(np.float64) @ right[whole:]
    else:
        rest = block[whole:].astype(np.float64)
        above[whole:] += rest @ right
        below += rest.T @ left[whole:]
    return above, below


def _check(block: np.ndarray, right: np.ndarray, left: np.ndarray | None) -> None:
    rows = right if left is None else left
    if block.shape != (len(rows), len(right)) or rows.shape != (len(rows), right.shape[1]):
        shapes = f"{right.shape}" if left is None else f"{right.shape} and {rows.shape}"
        raise ValueError(f"A block of shape {block.shape} cannot multiply vectors of shape {shapes}.")
    if block.dtype not in (np.float64, np.float32) or (block.size and block.strides[1] != block.itemsize):
        raise ValueError(f"A block of {block.dtype} must be of float64 or float32, its rows contiguous.")


def _packed(v: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "groups n together"]:
    """Vectors in groups of TOGETHER, the last filled up with zeros."""
    groups = -(-v.shape[1] // TOGETHER)
    result = np.zeros((groups, len(v), TOGETHER))
    for i in range(groups):
        part = v[:, i * TOGETHER : (i + 1) * TOGETHER]
        result[i, :, : part.shape[1]] = part
    return result


def _unpacked(groups: Float[np.ndarray, "groups n together"], k: int) -> Float[np.ndarray, "n k"]:
    return groups.swapaxes(0, 1).reshape(groups.shape[1], len(groups) * TOGETHER)[:, :k]

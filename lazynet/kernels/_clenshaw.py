"""Sums of Chebyshev polynomials whose coefficients are products of row features, in machine code.

For a pair of rows, the k-th coefficient is an inner product of a few features of the two rows. XLA writes the partial
sums of a whole block to memory after each term, and has to compile a program for each number of terms and features. The
loop is therefore written in LLVM IR: it holds the sums of ROWS rows and TOGETHER columns in registers and reads the
features from the cache.
"""

import ctypes
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lazynet.kernels._machine import machine_code
from lazynet.kernels._threads import in_threads

TOGETHER = 16  # number of columns whose sums are held in registers
ROWS = 2  # number of rows that share a pass over the features of the columns
STRIP = 64  # rows per task, a multiple of ROWS

VECTOR = f"<{TOGETHER} x double>"
FMA = f"call {VECTOR} @llvm.fmuladd.v{TOGETHER}f64"


def _for_each_row(lines: str) -> str:
    """Repeat lines of LLVM IR for each of the rows that share a pass; {i} is the number of the row."""
    return "\n".join(lines.replace("{i}", str(i)) for i in range(ROWS)).strip()


ASSEMBLY = f"""
declare {VECTOR} @llvm.fmuladd.v{TOGETHER}f64({VECTOR}, {VECTOR}, {VECTOR})

define void @clenshaw(ptr %y, ptr %left, ptr %right, ptr %ranks, ptr %result,
                      i64 %rows, i64 %columns, i64 %terms, i64 %total) {{
start:
  %any = icmp slt i64 0, %terms
  br i1 %any, label %group, label %end

group:
  %j = phi i64 [0, %start], [%j.next, %group.end]
  %packed = mul i64 %j, %total
  br label %row

row:
  %i = phi i64 [0, %group], [%i.next, %row.end]
  {
    _for_each_row(f'''
  %row{{i}} = add i64 %i, {{i}}
  %place{{i}} = mul i64 %row{{i}}, %columns
  %entry{{i}} = add i64 %place{{i}}, %j
  %y.at{{i}} = getelementptr double, ptr %y, i64 %entry{{i}}
  %y{{i}} = load {VECTOR}, ptr %y.at{{i}}, align 8
  %double{{i}} = fadd {VECTOR} %y{{i}}, %y{{i}}
  %features{{i}} = mul i64 %row{{i}}, %total''')
}
  br label %term

term:
  %k = phi i64 [0, %row], [%k.next, %term.end]
  %q = phi i64 [0, %row], [%q.end, %term.end]
  {
    _for_each_row(f'''
  %b1.{{i}} = phi {VECTOR} [zeroinitializer, %row], [%sum{{i}}, %term.end]
  %b2.{{i}} = phi {VECTOR} [zeroinitializer, %row], [%b1.{{i}}, %term.end]''')
}
  {
    _for_each_row(f'''
  %minus{{i}} = fneg {VECTOR} %b2.{{i}}
  %first{{i}} = {FMA}({VECTOR} %double{{i}}, {VECTOR} %b1.{{i}}, {VECTOR} %minus{{i}})''')
}
  %rank.at = getelementptr i64, ptr %ranks, i64 %k
  %rank = load i64, ptr %rank.at
  %q.last = add i64 %q, %rank
  %some = icmp slt i64 %q, %q.last
  br i1 %some, label %feature, label %term.end

feature:
  %f = phi i64 [%q, %term], [%f.next, %feature]
  {
    _for_each_row(f'''
  %partial{{i}} = phi {VECTOR} [%first{{i}}, %term], [%partial.next{{i}}, %feature]''')
}
  %right.shift = mul i64 %f, {TOGETHER}
  %right.place = add i64 %packed, %right.shift
  %right.at = getelementptr double, ptr %right, i64 %right.place
  %right.row = load {VECTOR}, ptr %right.at, align 8
  {
    _for_each_row(f'''
  %left.place{{i}} = add i64 %features{{i}}, %f
  %left.at{{i}} = getelementptr double, ptr %left, i64 %left.place{{i}}
  %one{{i}} = load double, ptr %left.at{{i}}
  %single{{i}} = insertelement {VECTOR} poison, double %one{{i}}, i32 0
  %all{{i}} = shufflevector {VECTOR} %single{{i}}, {VECTOR} poison, <{TOGETHER} x i32> zeroinitializer
  %partial.next{{i}} = {FMA}({VECTOR} %all{{i}}, {VECTOR} %right.row, {VECTOR} %partial{{i}})''')
}
  %f.next = add i64 %f, 1
  %more.features = icmp slt i64 %f.next, %q.last
  br i1 %more.features, label %feature, label %term.end

term.end:
  {
    _for_each_row(f'''
  %sum{{i}} = phi {VECTOR} [%first{{i}}, %term], [%partial.next{{i}}, %feature]''')
}
  %q.end = phi i64 [%q, %term], [%q.last, %feature]
  %k.next = add i64 %k, 1
  %more.terms = icmp slt i64 %k.next, %terms
  br i1 %more.terms, label %term, label %row.end

row.end:
  {
    _for_each_row(f'''
  %y.minus{{i}} = fneg {VECTOR} %y{{i}}
  %value{{i}} = {FMA}({VECTOR} %y.minus{{i}}, {VECTOR} %b1.{{i}}, {VECTOR} %sum{{i}})
  %result.at{{i}} = getelementptr double, ptr %result, i64 %entry{{i}}
  store {VECTOR} %value{{i}}, ptr %result.at{{i}}, align 8''')
}
  %i.next = add i64 %i, {ROWS}
  %more.rows = icmp slt i64 %i.next, %rows
  br i1 %more.rows, label %row, label %group.end

group.end:
  %j.next = add i64 %j, {TOGETHER}
  %more.columns = icmp slt i64 %j.next, %columns
  br i1 %more.columns, label %group, label %end

end:
  ret void
}}
"""


def clenshaw(
    y: Float[np.ndarray, "n1 n2"],
    left: Float[np.ndarray, "n1 total"],
    right: Float[np.ndarray, "n2 total"],
    ranks: Int[np.ndarray, " terms"],
) -> Float[np.ndarray, "n1 n2"]:
    """Return sum_k T_k(y_ij) sum_q left_iq right_jq for the Chebyshev polynomials T_k, by Clenshaw's algorithm.

    Args:
        y: Arguments in [-1, 1], shape (n1, n2).
        left: Features of the rows, shape (n1, total), in order of decreasing k.
        right: Features of the columns, shape (n2, total), in the same order.
        ranks: Number of features that belong to each term, in order of decreasing k. They sum to `total`.

    Returns:
        A NumPy float64 array of shape (n1, n2).
    """
    (n1, n2), total = y.shape, left.shape[1]
    if left.shape != (n1, total) or right.shape != (n2, total) or ranks.sum() != total or (ranks < 0).any():
        shapes = f"{left.shape}, {right.shape} and ranks that sum to {ranks.sum()}"
        raise ValueError(f"left and right must have the features of {n1} rows and {n2} columns, got shapes {shapes}.")
    groups = -(-n2 // TOGETHER)
    rows = -(-n1 // ROWS) * ROWS
    padded = np.zeros((rows, groups * TOGETHER))
    padded[:n1, :n2] = y
    packed = np.zeros((groups * TOGETHER, total))
    packed[:n2] = right
    packed = np.ascontiguousarray(packed.reshape(groups, TOGETHER, total).swapaxes(1, 2))
    left, ranks = np.concatenate([left, np.zeros((rows - n1, total))]), np.ascontiguousarray(ranks, np.int64)
    result = np.zeros_like(padded)
    # LLVM must not compile in two threads at the same time.
    compiled = _compiled()

    def strip(start: int) -> None:
        part = slice(start, start + STRIP)
        arrays = padded[part], left[part], packed, ranks, result[part]
        sizes = len(arrays[0]), padded.shape[1], len(ranks), total
        compiled.clenshaw(*(array.ctypes.data for array in arrays), *sizes)

    in_threads(strip, range(0, n1, STRIP))
    return result[:n1, :n2]


class _Compiled(NamedTuple):
    """The compiled function `clenshaw`, and the engine that must be kept alive because it owns the machine code."""

    clenshaw: Any
    engine: Any


@cache
def _compiled() -> _Compiled:
    engine = machine_code(ASSEMBLY)
    # ctypes releases Python's global interpreter lock during the call.
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9)
    return _Compiled(prototype(engine.get_function_address("clenshaw")), engine)

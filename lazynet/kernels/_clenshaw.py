"""Sums of Chebyshev polynomials whose coefficients are products of row features, in machine code.

For a pair of rows, the k-th coefficient is an inner product of a few features of the two rows. XLA writes the partial
sums of a whole block to memory after each term, and has to compile a program for each number of terms and features. The
loop is therefore written in LLVM IR: it holds the sums of TOGETHER columns in registers and reads the features from the
cache.
"""

import ctypes
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lazynet.kernels._machine import machine_code
from lazynet.kernels._threads import in_threads

TOGETHER = 16  # number of columns whose sums are held in registers
STRIP = 64  # rows per task

VECTOR = f"<{TOGETHER} x double>"
FMA = f"call {VECTOR} @llvm.fmuladd.v{TOGETHER}f64"

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
  %place = mul i64 %i, %columns
  %entry = add i64 %place, %j
  %y.at = getelementptr double, ptr %y, i64 %entry
  %y.row = load {VECTOR}, ptr %y.at, align 8
  %double = fadd {VECTOR} %y.row, %y.row
  %features = mul i64 %i, %total
  br label %term

term:
  %k = phi i64 [0, %row], [%k.next, %term.end]
  %q = phi i64 [0, %row], [%q.end, %term.end]
  %b1 = phi {VECTOR} [zeroinitializer, %row], [%sum, %term.end]
  %b2 = phi {VECTOR} [zeroinitializer, %row], [%b1, %term.end]
  %minus = fneg {VECTOR} %b2
  %sum.first = {FMA}({VECTOR} %double, {VECTOR} %b1, {VECTOR} %minus)
  %rank.at = getelementptr i64, ptr %ranks, i64 %k
  %rank = load i64, ptr %rank.at
  %q.last = add i64 %q, %rank
  %some = icmp slt i64 %q, %q.last
  br i1 %some, label %feature, label %term.end

feature:
  %f = phi i64 [%q, %term], [%f.next, %feature]
  %partial = phi {VECTOR} [%sum.first, %term], [%partial.next, %feature]
  %left.place = add i64 %features, %f
  %left.at = getelementptr double, ptr %left, i64 %left.place
  %one = load double, ptr %left.at
  %first = insertelement {VECTOR} poison, double %one, i32 0
  %all = shufflevector {VECTOR} %first, {VECTOR} poison, <{TOGETHER} x i32> zeroinitializer
  %right.shift = mul i64 %f, {TOGETHER}
  %right.place = add i64 %packed, %right.shift
  %right.at = getelementptr double, ptr %right, i64 %right.place
  %right.row = load {VECTOR}, ptr %right.at, align 8
  %partial.next = {FMA}({VECTOR} %all, {VECTOR} %right.row, {VECTOR} %partial)
  %f.next = add i64 %f, 1
  %more.features = icmp slt i64 %f.next, %q.last
  br i1 %more.features, label %feature, label %term.end

term.end:
  %sum = phi {VECTOR} [%sum.first, %term], [%partial.next, %feature]
  %q.end = phi i64 [%q, %term], [%q.last, %feature]
  %k.next = add i64 %k, 1
  %more.terms = icmp slt i64 %k.next, %terms
  br i1 %more.terms, label %term, label %row.end

row.end:
  %y.minus = fneg {VECTOR} %y.row
  %value = {FMA}({VECTOR} %y.minus, {VECTOR} %b1, {VECTOR} %sum)
  %result.at = getelementptr double, ptr %result, i64 %entry
  store {VECTOR} %value, ptr %result.at, align 8
  %i.next = add i64 %i, 1
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
    padded = np.zeros((n1, groups * TOGETHER))
    padded[:, :n2] = y
    packed = np.zeros((groups * TOGETHER, total))
    packed[:n2] = right
    packed = np.ascontiguousarray(packed.reshape(groups, TOGETHER, total).swapaxes(1, 2))
    left, ranks = np.ascontiguousarray(left, float), np.ascontiguousarray(ranks, np.int64)
    result = np.zeros_like(padded)
    # LLVM must not compile in two threads at the same time.
    compiled = _compiled()

    def strip(start: int) -> None:
        rows = slice(start, start + STRIP)
        arrays = padded[rows], left[rows], packed, ranks, result[rows]
        sizes = len(arrays[0]), padded.shape[1], len(ranks), total
        compiled.clenshaw(*(array.ctypes.data for array in arrays), *sizes)

    in_threads(strip, range(0, n1, STRIP))
    return result[:, :n2]


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

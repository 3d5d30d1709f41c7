"""Machine code that sums series in the angle between two rows; the coefficients are inner products of features.

For a pair of rows, the k-th coefficient is an inner product of a few features of the two rows. XLA would write the
partial sums of a whole block to memory after each term, and would have to compile a separate program for each number of
terms and features. The loop over the terms is therefore written in LLVM IR. It keeps the sums for ROWS rows and
TOGETHER columns in registers and reads the features from the cache. The argument of the Chebyshev polynomials is also
computed in LLVM IR, because the logarithm functions of NumPy and XLA process one entry at a time.
"""

import ctypes
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lazynet.kernels._machine import machine_code
from lazynet.kernels._threads import in_threads

TOGETHER = 16  # number of columns whose sums are held in registers
ROWS = 2  # number of rows that are processed in each pass over the features of the columns
STRIP = 64  # rows per parallel task, a multiple of ROWS

VECTOR = f"<{TOGETHER} x double>"
INTEGERS = f"<{TOGETHER} x i64>"
FMA = f"call {VECTOR} @llvm.fmuladd.v{TOGETHER}f64"


class Series(NamedTuple):
    """Sum over k of the Chebyshev polynomial T_k(y) times an inner product of features, for each (row, column) pair.

    Attributes:
        odd: Whether the sum is multiplied by the sign of the correlation rho. The argument y depends only on |rho|.
        focus: Length scale in the formula for y; see `clenshaw`. If None, there is a single term, which is multiplied
            by rho if `odd` is true.
        ranks: Number of features for each term, in order of decreasing k. These numbers sum to `total`.
        left: Features of the rows, shape (n1, total), in order of decreasing k.
        right: Features of the columns, shape (n2, total), in the same order.
    """

    odd: bool
    focus: float | None
    ranks: Int[np.ndarray, " terms"]
    left: Float[np.ndarray, "n1 total"]
    right: Float[np.ndarray, "n2 total"]


def _for_each_row(lines: str) -> str:
    """Repeat lines of LLVM IR for each row that is processed in a pass, replacing {i} with the index of the row."""
    return "\n".join(lines.replace("{i}", str(i)) for i in range(ROWS)).strip()


def _all(number: float) -> str:
    """Return an LLVM IR constant for a vector whose entries all equal `number`."""
    return f"splat (double {number:.17e})"


def _logarithm() -> str:
    """Return LLVM IR that computes %log{i} = log(%z{i}) for finite %z{i} >= 1.

    The logarithm of the significand is approximated by a polynomial.
    """
    # The nearest singularity is at zero, so successive Chebyshev coefficients of the logarithm on [1, 2] shrink by a
    # factor of 3 + sqrt(8).
    m = 1.5 + np.cos(np.pi * (np.arange(1000) + 0.5) / 1000) / 2
    series = np.polynomial.Chebyshev.fit(m, np.log(m), 18, domain=[1, 2])
    value, *coefficients = (_all(number) for number in np.polynomial.chebyshev.cheb2poly(series.coef)[::-1].tolist())
    steps = []
    for k, coefficient in enumerate(coefficients):
        steps.append(f"%p{k}.{{i}} = {FMA}({VECTOR} {value}, {VECTOR} %u{{i}}, {VECTOR} {coefficient})")
        value = f"%p{k}.{{i}}"
    polynomial = "\n  ".join(steps)
    # To convert the integer exponent to a double, its bits are combined with those of 2^52; then 2^52 and the exponent
    # bias of 1023 are subtracted.
    return f"""
  %bits{{i}} = bitcast {VECTOR} %z{{i}} to {INTEGERS}
  %digits{{i}} = and {INTEGERS} %bits{{i}}, splat (i64 {2**52 - 1})
  %m.bits{{i}} = or {INTEGERS} %digits{{i}}, splat (i64 {1023 << 52})
  %m{{i}} = bitcast {INTEGERS} %m.bits{{i}} to {VECTOR}
  %u{{i}} = {FMA}({VECTOR} %m{{i}}, {VECTOR} {_all(2.0)}, {VECTOR} {_all(-3.0)})
  %shifted{{i}} = lshr {INTEGERS} %bits{{i}}, splat (i64 52)
  %large.bits{{i}} = or {INTEGERS} %shifted{{i}}, splat (i64 {(1023 + 52) << 52})
  %large{{i}} = bitcast {INTEGERS} %large.bits{{i}} to {VECTOR}
  %exponent{{i}} = fsub {VECTOR} %large{{i}}, {_all(2.0**52 + 1023)}
  {polynomial}
  %log{{i}} = {FMA}({VECTOR} %exponent{{i}}, {VECTOR} {_all(math.log(2))}, {VECTOR} {value})"""


def _constant(name: str, place: int) -> str:
    """Return LLVM IR that loads the constant at index `place` and copies it to all entries of a vector."""
    return f"""
  %{name}.at = getelementptr double, ptr %constants, i64 {place}
  %{name}.one = load double, ptr %{name}.at
  %{name}.single = insertelement {VECTOR} poison, double %{name}.one, i32 0
  %{name} = shufflevector {VECTOR} %{name}.single, {VECTOR} poison, <{TOGETHER} x i32> zeroinitializer"""


def _assembly() -> str:
    """Return the LLVM IR of the function `clenshaw`, which adds the values of a series to the result."""
    constants = "".join(_constant(name, i) for i, name in enumerate(("squeeze", "stretch", "even", "linear", "odd")))
    return f"""
declare {VECTOR} @llvm.fmuladd.v{TOGETHER}f64({VECTOR}, {VECTOR}, {VECTOR})
declare {VECTOR} @llvm.sqrt.v{TOGETHER}f64({VECTOR})
declare {VECTOR} @llvm.fabs.v{TOGETHER}f64({VECTOR})
declare {VECTOR} @llvm.maxnum.v{TOGETHER}f64({VECTOR}, {VECTOR})
declare {VECTOR} @llvm.copysign.v{TOGETHER}f64({VECTOR}, {VECTOR})

define void @clenshaw(ptr %rho, ptr %left, ptr %right, ptr %ranks, ptr %constants, ptr %result,
                      i64 %rows, i64 %columns, i64 %terms, i64 %total) {{
start:
  {constants.strip()}
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
  %rho.at{{i}} = getelementptr double, ptr %rho, i64 %entry{{i}}
  %rho{{i}} = load {VECTOR}, ptr %rho.at{{i}}, align 8
  %size{{i}} = call {VECTOR} @llvm.fabs.v{TOGETHER}f64({VECTOR} %rho{{i}})
  %gap{{i}} = fsub {VECTOR} {_all(1.0)}, %size{{i}}
  %gap.clipped{{i}} = call {VECTOR} @llvm.maxnum.v{TOGETHER}f64({VECTOR} %gap{{i}}, {VECTOR} zeroinitializer)
  %square{{i}} = fmul {VECTOR} %gap.clipped{{i}}, %squeeze
  %h{{i}} = call {VECTOR} @llvm.sqrt.v{TOGETHER}f64({VECTOR} %square{{i}})
  %square.next{{i}} = fadd {VECTOR} %square{{i}}, {_all(1.0)}
  %hypotenuse{{i}} = call {VECTOR} @llvm.sqrt.v{TOGETHER}f64({VECTOR} %square.next{{i}})
  %z{{i}} = fadd {VECTOR} %h{{i}}, %hypotenuse{{i}}''')
    }
  {_for_each_row(_logarithm())}
  {
        _for_each_row(f'''
  %w{{i}} = fmul {VECTOR} %log{{i}}, %stretch
  %w.double{{i}} = fadd {VECTOR} %w{{i}}, %w{{i}}
  %y{{i}} = {FMA}({VECTOR} %w{{i}}, {VECTOR} %w.double{{i}}, {VECTOR} {_all(-1.0)})
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
  %sign{{i}} = call {VECTOR} @llvm.copysign.v{TOGETHER}f64({VECTOR} {_all(1.0)}, {VECTOR} %rho{{i}})
  %affine{{i}} = {FMA}({VECTOR} %linear, {VECTOR} %rho{{i}}, {VECTOR} %even)
  %factor{{i}} = {FMA}({VECTOR} %odd, {VECTOR} %sign{{i}}, {VECTOR} %affine{{i}})
  %result.at{{i}} = getelementptr double, ptr %result, i64 %entry{{i}}
  %before{{i}} = load {VECTOR}, ptr %result.at{{i}}, align 8
  %after{{i}} = {FMA}({VECTOR} %value{{i}}, {VECTOR} %factor{{i}}, {VECTOR} %before{{i}})
  store {VECTOR} %after{{i}}, ptr %result.at{{i}}, align 8''')
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


def clenshaw(rho: Float[np.ndarray, "n1 n2"], series: Sequence[Series]) -> Float[np.ndarray, "n1 n2"]:
    """Return the sum of several series in the angle arccos(rho), computed by Clenshaw's algorithm.

    The argument of the Chebyshev polynomials T_k is y = 2 (arcsinh(h / focus) / arcsinh(sqrt(1/2) / focus))^2 - 1 with
    h = sqrt((1 - |rho|) / 2), where `focus` is a field of each `Series`. Thus y = -1 if |rho| = 1, and y = 1 if
    rho = 0.

    Args:
        rho: Correlations, shape (n1, n2). Their absolute values may exceed 1 by a rounding error.
        series: List of series, each with the features of n1 rows and n2 columns.

    Returns:
        A NumPy float64 array of shape (n1, n2).

    Raises:
        ValueError: If a rank is negative, or if the features of a series do not match the shape of `rho` or the ranks
            of that series.
    """
    n1, n2 = rho.shape
    rows, columns = (-(-n // multiple) * multiple for n, multiple in ((n1, ROWS), (n2, TOGETHER)))
    arguments = []
    for odd, focus, ranks, left, right in series:
        total = left.shape[1]
        if left.shape != (n1, total) or right.shape != (n2, total) or ranks.sum() != total or (ranks < 0).any():
            shapes = f"{left.shape}, {right.shape} and ranks that sum to {ranks.sum()}"
            raise ValueError(
                f"left and right must have shapes ({n1}, total) and ({n2}, total), where total is the sum of the "
                f"nonnegative ranks, got shapes {shapes}."
            )
        packed = _padded(right, (columns, total)).reshape(-1, TOGETHER, total).swapaxes(1, 2)
        if focus is None:
            constants = [0.0, 0.0, not odd, odd, 0.0]
        else:
            constants = [0.5 / focus**2, 1 / math.asinh(math.sqrt(0.5) / focus), not odd, 0.0, odd]
        left, packed = _padded(left, (rows, total)), np.ascontiguousarray(packed)
        arguments.append((left, packed, np.ascontiguousarray(ranks, np.int64), np.array(constants, float)))
    padded, result = _padded(rho, (rows, columns)), np.zeros((rows, columns))
    # The code is compiled before the threads start, because LLVM must not compile in two threads at the same time.
    compiled = _compiled()

    def strip(start: int) -> None:
        part = slice(start, start + STRIP)
        for left, packed, ranks, constants in arguments:
            arrays = padded[part], left[part], packed, ranks, constants, result[part]
            sizes = len(arrays[0]), columns, len(ranks), left.shape[1]
            compiled.clenshaw(*(array.ctypes.data for array in arrays), *sizes)

    in_threads(strip, range(0, n1, STRIP))
    return result[:n1, :n2]


def _padded(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pad an array with zeros to the given shape; a contiguous array that already has this shape is not copied."""
    if array.shape == shape:
        return np.ascontiguousarray(array)
    result = np.zeros(shape)
    result[: array.shape[0], : array.shape[1]] = array
    return result


class _Compiled(NamedTuple):
    """The compiled function `clenshaw`, and the engine that must be kept alive because it owns the machine code."""

    clenshaw: Any
    engine: Any


@cache
def _compiled() -> _Compiled:
    engine = machine_code(_assembly())
    # ctypes releases Python's global interpreter lock during the call.
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 10)
    return _Compiled(prototype(engine.get_function_address("clenshaw")), engine)

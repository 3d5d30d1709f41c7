"""`lz.verify`, `lz.plot` and `lz.merge_shards`: the functions of every study, by the kind of its result."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazynet.execution import assemble_shards
from lazynet.typing import Figure, Result

if TYPE_CHECKING:
    from lazynet.studies.sweep._verdict import Verdict
else:
    Verdict = Any

# Functions by the kind of result that they take, as (module, name): they load on first use.
FIGURES = {
    "sweep": ("lazynet.studies.sweep._figure", "plot_sweep"),
    "infinite_width": ("lazynet.studies.infinite_width._figure", "plot_limit"),
    "laziness_map": ("lazynet.studies.laziness_map._figure", "plot_laziness"),
    "line_ensemble": ("lazynet.studies.line_ensemble._figure", "plot_line"),
    "mode_residuals": ("lazynet.studies.mode_residuals._figure", "plot_modes"),
}
VERDICTS = {"sweep": ("lazynet.studies.sweep._verdict", "verify_sweep")}
OUTPUTS = {kind: (f"lazynet.studies.{kind}._study", "OUTPUT") for kind in ("sweep", "infinite_width", "line_ensemble")}


def verify(result: Result, band: float = 0.1, *, corrections: bool = False) -> Verdict:
    """Compare a sweep with the theory of the lazy regime.

    Every exponent is fitted on the seed mean over all widths, with a 95% interval from a bootstrap over seeds, at every
    snapshot and on the maximum over snapshots. Gaps are judged on the maximum, because the theorems bound the supremum
    over time (Lee et al. 2019, Theorem 2.1). All other quantities are judged at the last step. A row holds if its whole
    interval lies within the band around the prediction (for "at most": below the upper end of the band). It fails if
    the whole interval lies outside. It is undecided otherwise, and if it would hold but members diverged. A row that
    holds scales as theory says; the levels tell whether the network is lazy.

    Args:
        result: result of `lazynet.sweep` without axes besides width and seed.
        band: largest allowed distance between the fitted and the predicted exponent, positive.
        corrections: True to also fit a m^p (1 + b m^(-1/2)) to each row, at its own reduction, for the exponent p at
            infinite width (`lazynet.theory.fit_correction`). This takes at least 4 widths. The status of a row remains
            that of the straight line.

    Returns:
        Verdict.

    Raises:
        ValueError: if the band is not positive and finite, the result has other axes than width and seed, or its kind
            has no verdict.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=64), data, widths=[64, 256, 1024], seeds=4, steps=10)
    >>> lz.verify(result).row("relative_displacement").status
    'holds'
    """
    kind = _kind_of(result)
    if kind not in VERDICTS:
        raise ValueError(
            f"result must be of a kind that has a verdict ({', '.join(VERDICTS)}), got a result of kind {kind}."
        )
    return _load(VERDICTS[kind])(result, band, corrections=corrections)


def plot(result: Result, verdict: Verdict | None = None) -> Figure:
    """Draw the figure of a result.

    The figure depends on the kind of the result:

    - sweep: training loss of networks and kernel, gaps and movement against the width, and fitted exponents against the
      step. Gaps are maxima over snapshots, movement is taken at the last step.
    - infinite width: losses on true and on random labels, and the test error.
    - laziness map: kernel change and test error over width and output scale with the boundary, and both against the
      control parameter.
    - line ensemble: mean and two standard deviations along the line, and the gap to the limit.
    - mode residuals: the residual along a few modes, and the step up to which each mode follows the kernel.

    Measurements are solid, with a band from the smallest to the largest seed; theory is dashed.

    Args:
        result: result of `lazynet.sweep` without axes besides width and seed, or of another study.
        verdict: verdict on a sweep; computed if None.

    Returns:
        A matplotlib Figure, not shown and not saved.

    Raises:
        ValueError: if no study makes results of this kind, a sweep has other axes than width and seed, or there is a
            verdict on a result whose kind has none.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=64), data, widths=[64, 256], seeds=2, steps=10)
    >>> len(lz.plot(result).axes)
    4
    """
    kind = _kind_of(result)
    draw = _load(FIGURES[kind])
    if kind in VERDICTS:
        return draw(result, verdict)
    if verdict is not None:
        raise ValueError(f"verdict must be None for a result of kind {kind}, got {type(verdict).__name__}.")
    return draw(result)


def merge_shards(out: str | Path) -> Result:
    """Assemble the result of a study from the cells that its shards have stored in a folder.

    The result and its verdict are written to the folder.

    Args:
        out: the folder of all shards.

    Returns:
        The result of the same study without shards.

    Raises:
        ValueError: if the folder holds no study, a process works on it, or a cell is missing or damaged.

    >>> import tempfile, lazynet as lz
    >>> data, out = lz.load_dataset("digits", n_train=32, n_test=8), tempfile.mkdtemp()
    >>> for k in (1, 2):
    ...     folder = lz.RunFolder(out, shard=(k, 2))
    ...     lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10, out=folder)
    >>> dict(lz.merge_shards(out).train_loss.sizes)
    {'width': 2, 'seed': 2, 'step': 11}
    """
    return assemble_shards(out, lambda kind: _load(OUTPUTS[kind]))


def _kind_of(result: Result) -> str:
    """Return the kind of a result.

    Raises:
        ValueError: if no study makes results of this kind.
    """
    kind = result.attrs.get("kind")
    if kind not in FIGURES:
        raise ValueError(f"result.attrs['kind'] must be one of {', '.join(FIGURES)}, got {kind!r}.")
    return kind


def _load(function: tuple[str, str]) -> Any:
    module, name = function
    return getattr(import_module(module), name)

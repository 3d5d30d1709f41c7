"""`lz.verify`, `lz.plot` and `lz.merge_shards`, which dispatch on the result's kind."""

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from lazynet.arguments import check_path
from lazynet.execution import Output, assemble_shards
from lazynet.measures import check_schema
from lazynet.studies._pieces import arranged
from lazynet.studies.sweep import Verdict
from lazynet.typing import Figure, Result

# The function that plots each kind of result, as (module, name). The modules are imported on first use.
FIGURES = {
    "sweep": ("lazynet.studies.sweep._figure", "plot_sweep"),
    "forecast": ("lazynet.studies.sweep._figure", "plot_sweep"),
    "infinite_width": ("lazynet.studies.infinite_width._figure", "plot_limit"),
    "laziness_map": ("lazynet.studies.laziness_map._figure", "plot_laziness"),
    "line_ensemble": ("lazynet.studies.line_ensemble._figure", "plot_line"),
    "mode_residuals": ("lazynet.studies.mode_residuals._figure", "plot_modes"),
    "required_width": ("lazynet.studies.required_width._figure", "plot_required_width"),
}
# The coordinates that a result of each kind must have before it is sorted and plotted. Sweeps are not listed, because
# the functions that plot and verify them check and sort the result themselves.
COORDINATES = {
    "infinite_width": ("labels", "step"),
    "laziness_map": ("width", "output_scale", "seed"),
    "line_ensemble": ("width", "seed", "step", "place"),
    "mode_residuals": ("step", "mode"),
}
VERDICTS = {
    "sweep": ("lazynet.studies.sweep._verdict", "verify_sweep"),
    "forecast": ("lazynet.studies.sweep._verdict", "verify_sweep"),
    "required_width": ("lazynet.studies.required_width._answer", "verify_required_width"),
}
OUTPUTS = {
    kind: (f"lazynet.studies.{kind}._study", "OUTPUT")
    for kind in ("sweep", "forecast", "infinite_width", "line_ensemble", "mode_residuals")
}

# What to do instead of merging shards, for kinds of studies whose shards cannot be merged.
ADVICE = {
    "required_width": " A search for the required width has no shards.",
    "laziness_map": " To join its shards, call lazynet.laziness_map again with a RunFolder that has resume=True and no "
    "shard.",
}


def verify(result: Result, tolerance: float | None = None, *, band: float = 0.1, corrections: bool = False) -> Verdict:
    """Determine from which width on and until which step the networks of a sweep are lazy, and compare it with theory.

    The gap between a network and a prediction is the RMS of their difference, divided by the RMS of the targets. There
    are two predictions: that of the network's own linearization, and that of the infinite-width kernel from the
    network's initial outputs. The supremum is the maximum of the gap over snapshots and over the training and test
    sets. A width is lazy if the 95% interval of the mean over seeds of the supremum lies within the tolerance, not lazy
    if it lies beyond the tolerance or if any network diverged, and undecided otherwise, including when there is only
    one seed. `Verdict.answer` summarizes this in words. Because gaps can grow with further training, the answer holds
    only for the number of steps in the sweep.

    Each row of the verdict compares the predicted width exponent of a quantity with an exponent fitted to the means
    over seeds. Gaps between a network and its kernel are judged by their maximum over snapshots, because the theorems
    bound the supremum over time (Lee et al. 2019, Theorem 2.1). The initial kernel error is judged at step 0. Other
    quantities are judged at the last step, unless they are registered with a different reduction. An exponent is also
    fitted at each snapshot. The 95% intervals of the exponents come from the spread over seeds.

    A prediction holds if the entire interval lies within the band around the prediction (for "at most" rows, below the
    upper end of the band), and fails if the entire interval lies outside it. Otherwise, it is undecided. A prediction
    that would otherwise hold is also undecided if some networks diverged before they were judged. If a prediction
    holds, the quantity scales as the theory predicts; the levels at the largest width show whether the network is lazy.

    For a result of `lazynet.required_width`, the verdict contains only the answer and the regime of each trained width.
    It uses the tolerance of the search, so `tolerance` and `corrections` must be omitted, and `band` has no effect. For
    a result of `lazynet.forecast`, the answer is a forecast.

    Args:
        result: Result of `lazynet.sweep` with no axes other than width and seed, or of `lazynet.required_width`.
        tolerance: Largest gap at which networks count as lazy, between 0 and 1. Defaults to 0.05.
        band: Maximum allowed difference between the fitted and predicted exponents; must be positive.
        corrections: Whether to also fit the function a m^p (1 + b m^(-1/2)) of the width m to the quantity in each
            row, where p is the exponent at infinite width (see `lazynet.theory.fit_correction`). The fit requires at
            least 4 widths and does not change the status of the row.

    Returns:
        A `Verdict`.

    Raises:
        ValueError: If the tolerance is not between 0 and 1, if a tolerance is given but the result has no predictions,
            lacks the RMS of the targets or has its own tolerance, if the band is not positive and finite, if the result
            has axes other than width and seed, if its schema is newer than this version of lazynet supports, or if
            there is no verdict for this kind of result.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=64), data, widths=[64, 1024], seeds=4, steps=10)
    >>> verdict = lz.verify(result)
    >>> verdict.answer.partition(";")[0]
    'Over 10 steps the network follows its linearization to 5% from width 1024 on (width 64: undecided)'
    >>> verdict.row("relative_displacement").status
    'holds'
    """
    kind = _kind_of(result)
    if kind not in VERDICTS:
        raise ValueError(
            f"result must be of a kind that has a verdict ({', '.join(VERDICTS)}), got a result of kind {kind}."
        )
    return _load(VERDICTS[kind])(result, tolerance, band=band, corrections=corrections)


def plot(result: Result, verdict: Verdict | None = None) -> Figure:
    """Draw the figure for a result.

    The figure depends on the kind of result:

    - sweep: the training losses of the networks and of the kernel; gaps and movement against the width; and fitted
      exponents against the step. Gaps are maxima over snapshots; movement is measured at the last step.
    - infinite width: the losses on true and random labels, and the test error.
    - laziness map: the kernel change and the test error as functions of width and output scale, together with the
      boundary of the lazy regime; and the same two quantities against the control parameter m^p alpha.
    - line ensemble: the mean output along the line, with a band of plus or minus two standard deviations; and the
      distance from the infinite-width limit against the width.
    - required width: the largest gap at each trained width, with the tolerance and the predicted and measured
      crossings; and the running maximum of the gap against the step.
    - mode residuals: the residual along a few modes, and how long each mode follows the kernel's prediction.

    Measurements are drawn as solid lines, and theory as dashed lines. Unless stated otherwise, bands show the range
    over seeds.

    Args:
        result: Result of a study. A sweep must have no axes other than width and seed.
        verdict: Verdict on the result, for kinds that have one; computed if None.

    Returns:
        A matplotlib Figure, which is neither shown nor saved.

    Raises:
        ValueError: If no study produces results of this kind, if the result's schema is newer than this version of
            lazynet supports, if a sweep has axes other than width and seed, or if `verdict` is given for a kind of
            result that has no verdict.

    >>> import lazynet as lz
    >>> data = lz.load_dataset("digits", n_train=32, n_test=8)
    >>> result = lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10)
    >>> len(lz.plot(result).axes)
    6
    """
    kind = _kind_of(result)
    draw = _load(FIGURES[kind])
    if kind in VERDICTS:
        if not (verdict is None or hasattr(verdict, "rows")):
            raise ValueError(f"verdict must be a lazynet.Verdict or None, got {type(verdict).__name__}.")
        return draw(result, verdict)
    if verdict is not None:
        raise ValueError(f"verdict must be None for a result of kind {kind}, got {type(verdict).__name__}.")
    names = COORDINATES[kind]
    # The mode residuals of a single run have no width or seed coordinate.
    if kind == "mode_residuals" and {"width", "seed"} & {*result.coords, *result.dims}:
        names = "width", "seed", *names
    return draw(arranged(result, kind, names))


def merge_shards(out: str | Path) -> Result:
    """Assemble the result of a study from the cells that its shards have stored in a folder.

    The result and its verdict, if any, are written to the same folder. Quantities that were registered when the shards
    were computed must be registered again in this process (see `lazynet.register_quantity`).

    Args:
        out: The folder that the shards share.

    Returns:
        The result that the study would have produced without shards.

    Raises:
        ValueError: If the folder does not contain a study whose shards can be merged, if it contains a result whose
            schema is newer than this version of lazynet supports, if a process is still working on the study, if a cell
            is missing or damaged, or if a quantity used in the study is not registered.

    >>> import tempfile, lazynet as lz
    >>> data, out = lz.load_dataset("digits", n_train=32, n_test=8), tempfile.mkdtemp()
    >>> for k in (1, 2):
    ...     folder = lz.RunFolder(out, shard=(k, 2))
    ...     lz.sweep(lz.TwoLayer(width=16), data, widths=[16, 32], seeds=2, steps=10, out=folder)
    >>> dict(lz.merge_shards(out).train_loss.sizes)
    {'width': 2, 'seed': 2, 'step': 11}
    """
    out = check_path("out", out)
    _check_stored_result(out / "result.nc")
    return assemble_shards(out, _output_of)


def _check_stored_result(file: Path) -> None:
    """Check that a result that is about to be replaced was not written by a newer version of lazynet.

    Raises:
        ValueError: If the result's schema is newer than this version of lazynet supports.
    """
    import xarray

    # A missing or damaged file may be replaced.
    with suppress(OSError), xarray.open_dataset(file, engine="h5netcdf") as stored:
        check_schema(stored.attrs)


def _output_of(kind: str) -> Output:
    """Return the functions that produce the result and the files for a kind of study.

    Raises:
        ValueError: If shards of this kind cannot be merged.
    """
    if kind not in OUTPUTS:
        raise ValueError(
            f"out must contain a study whose shards can be merged ({', '.join(OUTPUTS)}), got a study of "
            f"kind {kind!r}." + ADVICE.get(kind, "")
        )
    return _load(OUTPUTS[kind])


def _kind_of(result: Result) -> str:
    """Return the kind of a result.

    Raises:
        ValueError: If `result` is not the result of a study, if no study produces results of this kind, or if the
            result's schema is newer than this version of lazynet supports.
    """
    if not isinstance(getattr(result, "attrs", None), dict):
        raise ValueError(f"result must be the result of a study (an xarray.Dataset), got {type(result).__name__}.")
    check_schema(result.attrs)
    kind = result.attrs.get("kind")
    if kind not in FIGURES:
        raise ValueError(f"result.attrs['kind'] must be one of {', '.join(FIGURES)}, got {kind!r}.")
    return kind


def _load(function: tuple[str, str]) -> Any:
    module, name = function
    return getattr(import_module(module), name)

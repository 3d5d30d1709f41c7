"""The figure for a prediction at infinite width: losses on true and random labels, and the test error."""

import json

from lazynet.studies._style import BLUE, SETTINGS, VERMILION
from lazynet.typing import Figure, Result

COLORS = {"true": BLUE, "random": VERMILION}


def plot_limit(result: Result) -> Figure:
    """Plot the losses on true and random labels, and the test error, against the training step.

    Args:
        result: Result of `lazynet.infinite_width`.

    Returns:
        A matplotlib Figure, which is neither shown nor saved.
    """
    import matplotlib as mpl

    from lazynet.figures import Figure

    settings = json.loads(result.attrs["settings"])
    tested = "test_error" in result
    later = result.isel(step=result.step.values > 0)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(11 if tested else 6, 4.4), layout="constrained")
        panels = figure.subplots(1, 1 + tested, squeeze=False)[0]
        for labels, color in COLORS.items():
            curve = later.sel(labels=labels)
            name = f"{labels} labels, complexity {float(curve.complexity):.2f}"
            panels[0].loglog(later.step, curve.train_loss / settings["n_train"], color=color, label=name)
        floor = result.attrs["resolved_loss"] / settings["n_train"]
        if float(later.train_loss.min()) / settings["n_train"] < floor:
            panels[0].axhline(floor, color="gray", linestyle=":", label="below this, not resolved")
        panels[0].set(title="Loss on the training set", xlabel="step", ylabel="training loss, per example")
        panels[0].legend()
        if tested:
            panels[1].semilogx(later.step, 100 * later.test_error, color=COLORS["true"])
            panels[1].set(title="Error on the test set, true labels", xlabel="step", ylabel="misclassified, %")
            panels[1].set_ylim(0, max(1.0, 105 * float(later.test_error.max())))
        figure.suptitle(_finding(result, settings), fontsize=13, fontweight="bold")
    return figure


def _finding(result: Result, settings: dict) -> str:
    """Return the figure's title, which compares the losses on true and random labels and states the test error."""
    n, floor = settings["n_train"], result.attrs["resolved_loss"] / settings["n_train"]
    true, random = (float(result.train_loss.sel(labels=labels)[-1]) / n for labels in COLORS)
    error = f"; test error {float(result.test_error[-1]):.2%}" if "test_error" in result else ""
    if random <= floor:
        compared = "both losses are too small to tell apart"
    else:
        least = "at least " if true < floor else ""
        compared = f"the loss on random labels is {least}{random / max(true, floor):.3g} times the loss on true labels"
    return (
        f"The kernel of {settings['traits']['title']} on {settings['dataset']}, n = {n}: after "
        f"{int(result.step[-1])} steps\n{compared}{error}"
    )

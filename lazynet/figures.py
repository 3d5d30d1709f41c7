"""A Matplotlib figure that notebooks display without a magic command. Matplotlib is slow to import."""

import io

import matplotlib.figure


class Figure(matplotlib.figure.Figure):
    """A figure that is not managed by pyplot, and that a notebook displays as an image."""

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG image."""
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()

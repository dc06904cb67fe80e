"""Pictures as SVG that a report can carry, legible on a dark ground and on a light one: they bring their own.

Matplotlib is imported when the first picture is drawn, since that takes about a second. Its settings are global,
so one picture is drawn at a time.
"""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

INK, DIM, BAR = "#1f2328", "#59636e", "#2f6fb2"
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "conclave",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
}
_drawing = threading.Lock()


def as_address(svg: str) -> str:
    """A picture as an address that begins with `data:`."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def svg_of(size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """What `draw` puts on a white figure of this size in inches; the same gives the same. Raises ImportError."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _settings():
        figure = Figure(figsize=size, facecolor="white")
        FigureCanvasSVG(figure)
        draw(figure)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return re.sub(r"\s*\n\s*", " ", svg.getvalue())


@contextmanager
def _settings() -> Generator[None, None, None]:
    import matplotlib

    with _drawing, matplotlib.rc_context(_SETTINGS):
        yield

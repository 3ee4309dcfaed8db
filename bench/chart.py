"""A chart of bars as SVG, readable on a light and on a dark page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from bench.measure import shown

WIDTH: Final = 860
COLUMNS: Final = 2
MARGIN: Final = 16
TITLE_HEIGHT: Final = 44
BAR_HEIGHT: Final = 18
BAR_STEP: Final = 26
LABEL_WIDTH: Final = 190
VALUE_WIDTH: Final = 76

_NAMESPACE: Final = "http://www.w3.org/2000/svg"
_STYLE: Final = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; font-size: 13px; }
  .unit { fill: #59636e; }
  .bar { fill: #9aa4b0; }
  .ours { fill: #1f6feb; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .unit { fill: #9198a1; }
    .bar { fill: #6e7781; }
    .ours { fill: #4493f8; }
  }
"""


@dataclass(frozen=True)
class Bar:
    """A bar, and whether it is this server's."""

    label: str
    value: float
    ours: bool


@dataclass(frozen=True)
class Panel:
    """Bars that are compared with each other."""

    title: str
    unit: str
    bars: Sequence[Bar]


def draw(panels: Sequence[Panel], description: str) -> str:
    """The chart: panels side by side, each as wide as its longest bar needs."""
    width = (WIDTH - MARGIN * (COLUMNS + 1)) // COLUMNS
    parts = []
    y = MARGIN
    for first in range(0, len(panels), COLUMNS):
        row = panels[first : first + COLUMNS]
        for column, panel in enumerate(row):
            parts += _panel(panel, MARGIN + column * (width + MARGIN), y, width)
        y += TITLE_HEIGHT + BAR_STEP * max(len(panel.bars) for panel in row) + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="{_NAMESPACE}" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">',
            f"<title>{escape(description)}</title>",
            f"<style>{_STYLE}</style>",
            *parts,
            "</svg>\n",
        ]
    )


def _panel(panel: Panel, x: int, y: int, width: int) -> list[str]:
    longest = max((bar.value for bar in panel.bars), default=0.0) or 1.0
    left, room = x + LABEL_WIDTH, width - LABEL_WIDTH - VALUE_WIDTH
    parts = [
        f'<text class="title" x="{x}" y="{y + 14}">{escape(panel.title)}</text>',
        f'<text class="unit" x="{x}" y="{y + 30}">{escape(panel.unit)}</text>',
    ]
    for number, bar in enumerate(panel.bars):
        top = y + TITLE_HEIGHT + number * BAR_STEP
        middle = top + BAR_HEIGHT - 5
        length = max(1.0, bar.value / longest * room)
        kind = "bar ours" if bar.ours else "bar"
        parts += [
            f'<text x="{x}" y="{middle}">{escape(bar.label)}</text>',
            f'<rect class="{kind}" x="{left}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}" rx="2"/>',
            f'<text x="{left + length + 6:.1f}" y="{middle}">{shown(bar.value)}</text>',
        ]
    return parts

"""One self-contained HTML page out of charts, pictures and tables."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from matplotlib.figure import Figure

PICTURE_DPI = 110

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; background: #f4f6f8; margin: 0; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 0 0 .6rem; }
section { background: #fff; border: 1px solid #dde3e9; border-radius: 8px; padding: 1rem 1.2rem;
  margin: 1rem 0; }
p.note { color: #55626f; margin: .2rem 0 .8rem; max-width: 60rem; }
p.warning { background: #fff4e0; border-left: 4px solid #e09b2d; padding: .5rem .8rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
.wide + .charts { margin-top: 1.2rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; text-align: right; border-bottom: 1px solid #edf0f3;
  vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; min-width: 9rem; max-width: 16rem; }
th { font-weight: 600; color: #55626f; font-size: 12px; line-height: 1.2; }
pre { overflow-x: auto; font-size: 12px; }
"""


@dataclass(frozen=True)
class Image:
    """A figure as an ``img`` element that needs no file beside the page.

    Attributes:
        figure: the drawing.
        description: what a reader who cannot see it is told.
        kind: ``svg`` for charts, ``png`` for films.
    """

    figure: Figure
    description: str
    kind: Literal["svg", "png"] = "svg"

    def html(self) -> str:
        """The element."""
        drawn = io.BytesIO()
        self.figure.savefig(
            drawn, format=self.kind, dpi=PICTURE_DPI, metadata={"Date": None} if self.is_svg else {}
        )
        mime = "image/svg+xml" if self.is_svg else "image/png"
        content = base64.b64encode(drawn.getvalue()).decode()
        return f'<img alt="{escape(self.description)}" src="data:{mime};base64,{content}">'

    @property
    def is_svg(self) -> bool:
        """Whether it scales without loss."""
        return self.kind == "svg"


def page(title: str, subtitle: str, sections: Sequence[str]) -> str:
    """The whole page; ``sections`` are HTML already, the rest is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="note">{escape(subtitle)}</p>'
        f"{''.join(sections)}</main></body></html>\n"
    )


def section(heading: str, *parts: str, note: str = "") -> str:
    """A titled box of HTML parts."""
    explained = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(heading)}</h2>{explained}{''.join(parts)}</section>"


def images(*drawn: Image) -> str:
    """Figures side by side, as far as the page is wide."""
    return f'<div class="charts">{"".join(image.html() for image in drawn)}</div>'


def warning(text: str) -> str:
    """A paragraph that is not overlooked."""
    return f'<p class="warning">{escape(text)}</p>'


def details(heading: str, text: str) -> str:
    """Preformatted text that opens on a click."""
    return f"<details><summary>{escape(heading)}</summary><pre>{escape(text)}</pre></details>"


def table(columns: Sequence[str], rows: Mapping[str, Sequence[object]]) -> str:
    """A table whose first column names the rows; numbers to three decimals, None as a dash."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{_cell(v)}</td>' for v in values)}</tr>"
        for name, values in rows.items()
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    if value is None:
        return "&ndash;"
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))

"""Styles of graphic annotations (PS3.3 C.10.5) that stay legible on a light film and on a dark one.

A dark rim around each letter and line; viewers that know no styles draw them plain.
"""

from typing import Final

from highdicom.color import CIELabColor
from pydicom import Dataset

Colour = tuple[int, int, int]

RIM: Final[Colour] = (0, 0, 0)
# Of the text, for viewers that honour it; a sans serif that every CSS engine has.
FONT: Final = "sans-serif"


def text_style(colour: Colour) -> Dataset:
    """An item of Text Style Sequence (0070,0231): coloured letters with a dark rim."""
    style = _rimmed()
    style.CSSFontName = FONT
    style.TextColorCIELabValue = list(CIELabColor.from_rgb(*colour).value)
    style.Underlined, style.Bold, style.Italic = "N", "N", "N"
    return style


def line_style(colour: Colour) -> Dataset:
    """An item of Line Style Sequence (0070,0232): a solid coloured line with a dark rim."""
    style = _rimmed()
    style.PatternOnColorCIELabValue = list(CIELabColor.from_rgb(*colour).value)
    style.PatternOnOpacity = 1.0
    style.LineThickness = 1.5
    style.LineDashingStyle = "SOLID"
    return style


def _rimmed() -> Dataset:
    style = Dataset()
    style.ShadowStyle = "OUTLINED"
    style.ShadowOffsetX, style.ShadowOffsetY = 1.0, 1.0
    style.ShadowColorCIELabValue = list(CIELabColor.from_rgb(*RIM).value)
    style.ShadowOpacity = 1.0
    return style

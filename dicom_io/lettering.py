"""Text in pictures, in the font that Pillow ships, so that it looks the same on every machine."""

from functools import cache

from PIL import ImageFont

LINE_HEIGHT = 1.35


@cache
def font_of(height: int) -> ImageFont.FreeTypeFont:
    """The font at a height in pixels; it has the printable ASCII characters.

    Raises:
        TypeError: Pillow was built without FreeType.
    """
    font = ImageFont.load_default(size=height)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, which text in pictures needs")
    return font


def break_lines(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text at spaces; a word longer than the width is broken where it must be.

    Args:
        text: words and spaces.
        font: that it will be written in.
        width: of a line, in pixels.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines

"""The panel beside the film of an overlay picture: what a reader must know to judge it.

It holds no patient data. All text is ASCII in the font that Pillow ships, so that the picture does
not depend on the machine.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset

from dicom_io.colours import LEFT_LUNG_RGB, RIGHT_LUNG_RGB, blend_saliency
from dicom_io.findings import Findings, Verdict
from dicom_io.lettering import LINE_HEIGHT, break_lines, font_of
from dicom_io.result_object import RESEARCH_ONLY, plain_text
from dicom_io.source_attributes import local_time
from dicom_io.spacing import lung_area_cm2, lung_area_percent, pixel_spacing

Colour: TypeAlias = tuple[int, int, int]

PANEL: Final[Colour] = (16, 20, 26)
TEXT: Final[Colour] = (236, 240, 244)
QUIET: Final[Colour] = (166, 176, 188)
TRACK: Final[Colour] = (58, 66, 78)
WARNING: Final[Colour] = (255, 196, 84)

# All lengths of the panel are multiples of its text height.
WIDTH_IN_TEXT_HEIGHTS: Final = 20.0
MARGIN: Final = 1.0
SMALL: Final = 0.82

VERDICT_TEXT: Final = {
    Verdict.PNEUMONIA: "Pneumonia: suggested",
    Verdict.NORMAL: "Pneumonia: not suggested",
}


@dataclass
class _Pen:
    """Draws from top to bottom; ``y`` is where the next thing goes, in pixels."""

    draw: ImageDraw.ImageDraw
    text_height: int
    left: int
    right: int
    y: float = 0.0

    def skip(self, text_heights: float) -> None:
        self.y += text_heights * self.text_height

    def write(self, text: str, size: float = 1.0, colour: Colour = TEXT, indent: float = 0) -> None:
        """Write a paragraph, broken into lines at spaces."""
        font = font_of(round(size * self.text_height))
        x = self.left + round(indent * self.text_height)
        for line in break_lines(text, font, self.right - x):
            self.draw.text((x, round(self.y)), line, font=font, fill=colour)
            self.skip(LINE_HEIGHT * size)

    def bar(self, height: float) -> tuple[int, int, int, int]:
        """Take a strip of the full width; its corners, in pixels."""
        top = round(self.y)
        self.skip(height)
        return self.left, top, self.right, round(self.y)


def draw_legend(
    findings: Findings, source: Dataset, created: datetime, text_height: int
) -> Image.Image:
    """Draw the panel as high as its content.

    Args:
        findings: what was found.
        source: the radiograph, for pixel spacing and time zone.
        created: when the result was made.
        text_height: height of the running text, in pixels.

    Returns:
        An RGB picture, ``20 * text_height`` wide.
    """
    width = round(WIDTH_IN_TEXT_HEIGHTS * text_height)
    # Drawn on more than is ever needed and cut, since only drawing tells where lines break.
    sheet = Image.new("RGB", (width, 80 * text_height), PANEL)
    margin = round(MARGIN * text_height)
    pen = _Pen(ImageDraw.Draw(sheet), text_height, margin, width - margin)
    pen.skip(MARGIN)
    _draw_answer(pen, findings)
    _draw_saliency_scale(pen, sheet)
    _draw_lungs(pen, findings, source)
    _draw_origin(pen, findings, local_time(created, source))
    _draw_warning(pen)
    pen.skip(MARGIN)
    return sheet.crop((0, 0, width, min(round(pen.y), sheet.height)))


def _draw_answer(pen: _Pen, findings: Findings) -> None:
    pen.write(VERDICT_TEXT[findings.verdict], size=1.3)
    pen.skip(0.2)
    percent = percent_text(findings.probability)
    pen.write(f"Probability {percent} %", size=1.6)
    pen.skip(0.3)
    _draw_gauge(pen, findings.probability, findings.operating_point)
    pen.write(
        f"Operating point {100 * findings.operating_point:.0f} %: "
        "at or above it pneumonia is suggested.",
        size=SMALL,
        colour=QUIET,
    )
    pen.write(
        f"Calibrated: of 100 films with this value, like those it was calibrated on, {percent} "
        "are expected to show pneumonia.",
        size=SMALL,
        colour=QUIET,
    )
    if findings.gate_score is not None and findings.gate_threshold is not None:
        pen.write(
            f"Unlike the training films: {findings.gate_score:.2f} "
            f"(refused above {findings.gate_threshold:.2f}).",
            size=SMALL,
            colour=QUIET,
        )
    pen.skip(0.7)


def percent_text(probability: float) -> str:
    """A probability as whole percent, where no rounding turns a doubt into certainty."""
    if probability < 0.01:
        return "<1"
    return ">99" if probability > 0.99 else f"{100 * probability:.0f}"


def _draw_gauge(pen: _Pen, probability: float, operating_point: float) -> None:
    left, top, right, bottom = pen.bar(0.7)
    pen.draw.rectangle((left, top, right, bottom), fill=TRACK)
    pen.draw.rectangle((left, top, left + round(probability * (right - left)), bottom), fill=TEXT)
    tick = left + round(operating_point * (right - left))
    reach = round(0.25 * pen.text_height)
    half = max(1, pen.text_height // 12)
    pen.draw.rectangle((tick - half, top - reach, tick + half, bottom + reach), fill=WARNING)
    pen.skip(0.5)


def _draw_saliency_scale(pen: _Pen, sheet: Image.Image) -> None:
    pen.write("Saliency")
    pen.skip(0.1)
    left, top, right, bottom = pen.bar(0.9)
    level_hw = np.broadcast_to(
        np.linspace(0, 1, right - left, dtype=np.float32), (bottom - top, right - left)
    )
    film_hw = np.full(level_hw.shape, 96, dtype=np.uint8)
    scale_hwc = np.rint(blend_saliency(film_hw, level_hw)).astype(np.uint8)
    sheet.paste(Image.fromarray(scale_hwc), (left, top))
    pen.skip(0.25)
    font = font_of(round(SMALL * pen.text_height))
    pen.draw.text((left, round(pen.y)), "0", font=font, fill=QUIET)
    pen.draw.text((right, round(pen.y)), "most in this film", font=font, fill=QUIET, anchor="ra")
    pen.skip(LINE_HEIGHT * SMALL)
    pen.write(
        "Where a change of the film would change the answer most. It does not outline disease.",
        size=SMALL,
        colour=QUIET,
    )
    pen.skip(0.7)


def _draw_lungs(pen: _Pen, findings: Findings, source: Dataset) -> None:
    lungs = findings.lungs
    mark = "" if lungs.side_is_certain else "?"
    for name, mask_hw, colour in (
        (f"R{mark}  right lung", lungs.right_hw, RIGHT_LUNG_RGB),
        (f"L{mark}  left lung", lungs.left_hw, LEFT_LUNG_RGB),
    ):
        pen.write(name, colour=colour)
        pen.skip(-LINE_HEIGHT)
        font = font_of(pen.text_height)
        area = _area_text(lung_area_cm2(mask_hw, source), lung_area_percent(mask_hw))
        pen.draw.text((pen.right, round(pen.y)), area, font=font, fill=TEXT, anchor="ra")
        pen.skip(LINE_HEIGHT)
    spacing = pixel_spacing(source)
    scale = "no pixel spacing, so no cm2" if spacing is None else f"cm2: {spacing.plane.value}"
    sides = lungs.side_evidence if lungs.side_is_certain else f"UNCERTAIN, {lungs.side_evidence}"
    pen.write(f"Share of the film; {scale}.", size=SMALL, colour=QUIET)
    pen.write(
        plain_text(f"Sides: {sides}.", 400),
        size=SMALL,
        colour=QUIET if lungs.side_is_certain else WARNING,
    )
    pen.skip(0.7)


def _area_text(area_cm2: float | None, percent: float) -> str:
    if percent == 0:
        return "not found"
    share = f"{percent:.1f} %"
    return share if area_cm2 is None else f"{area_cm2:.0f} cm2, {share}"


def _draw_origin(pen: _Pen, findings: Findings, moment: datetime) -> None:
    model = findings.model
    pen.write(plain_text(f"{model.name} {model.version}"))
    pen.write(f"weights {plain_text(model.sha256, 12)}", size=SMALL, colour=QUIET)
    pen.write(f"created {moment:%Y-%m-%d %H:%M:%S %z}".rstrip(), size=SMALL, colour=QUIET)
    pen.skip(0.7)


def _draw_warning(pen: _Pen) -> None:
    line = max(1, pen.text_height // 12)
    pen.draw.rectangle((pen.left, round(pen.y), pen.right, round(pen.y) + line), fill=WARNING)
    pen.skip(0.5)
    pen.write(RESEARCH_ONLY, colour=WARNING)

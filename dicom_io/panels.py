"""Pictures of single DICOM objects, drawn from what stands in them and nothing else."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset

from dicom_io.contours import outlines
from dicom_io.graphic_style import RIM, Colour
from dicom_io.lettering import LINE_HEIGHT, break_lines, font_of
from dicom_io.overlay import drawing_size
from dicom_io.pixels import decode, display_image
from dicom_io.spacing import display_aspect

PLAIN: Final[Colour] = (255, 220, 80)
PAPER: Final[Colour] = (24, 26, 30)
INK: Final[Colour] = (225, 228, 232)
TEXT_HEIGHT: Final = 20
DOCUMENT_WIDTH: Final = 1024
MOST_LINES: Final = 400
OUTLINE_TOLERANCE_PIXELS: Final = 0.5


def film_panel(source: Dataset, result: Dataset | None = None) -> Image.Image:
    """A radiograph, alone or with a segmentation or presentation state that refers to it.

    Raises:
        ImageRejected: the radiograph cannot be decoded.
    """
    film_hw = display_image(decode(source))
    rows, columns = film_hw.shape
    height, width = drawing_size(rows, columns, display_aspect(source))
    panel = Image.fromarray(film_hw).convert("RGB").resize((width, height))
    if result is not None:
        draw_result(panel, result, (rows, columns))
    return panel


def lone_panel(result: Dataset) -> Image.Image:
    """A segmentation or presentation state whose radiograph is not at hand, on black."""
    if "Rows" in result:
        rows, columns = int(result.Rows), int(result.Columns)
    else:
        area = result.DisplayedAreaSelectionSequence[0]
        columns, rows = (int(value) for value in area.DisplayedAreaBottomRightHandCorner)
    height, width = drawing_size(rows, columns, 1.0)
    panel = Image.new("RGB", (width, height))
    draw_result(panel, result, (rows, columns))
    return panel


def draw_result(panel: Image.Image, result: Dataset, rows_columns: tuple[int, int]) -> None:
    """Draw the outlines that a segmentation or presentation state describes onto a panel.

    Args:
        panel: the picture of the whole film.
        result: a segmentation or a presentation state.
        rows_columns: size of the film in its own pixels.
    """
    scale = np.array([panel.width / rows_columns[1], panel.height / rows_columns[0]])
    drawing = ImageDraw.Draw(panel)
    line_width = max(1, round(max(panel.size) / 420))
    text_height = max(panel.size) // 40
    font = font_of(text_height)
    lines = _segments(result) if "SegmentSequence" in result else _graphics(result)
    for label, colour, polygon in lines:
        points = [tuple(point) for point in np.asarray(polygon) * scale]
        if len(points) > 1:
            drawing.line(points, fill=RIM, width=line_width + 2, joint="curve")
            drawing.line(points, fill=colour, width=line_width, joint="curve")
        if label:
            # The label stands at the highest point, inside the picture.
            x, y = min(points, key=lambda point: point[1])
            text = "\n".join(break_lines(label, font, panel.width))
            _, _, width, height = drawing.multiline_textbbox((0, 0), text, font=font)
            corner = (max(0, min(x, panel.width - width)), max(0, y - height - line_width * 2))
            drawing.multiline_text(
                corner, text, font=font, fill=colour, stroke_width=2, stroke_fill=RIM
            )


def picture_panel(capture: Dataset) -> Image.Image:
    """The pixels of a colour secondary capture."""
    return Image.fromarray(np.asarray(capture.pixel_array, dtype=np.uint8)).convert("RGB")


def document_panel(report: Dataset) -> Image.Image:
    """The content tree of a structured report as indented text."""
    font = font_of(TEXT_HEIGHT)
    lines = [str(report.get("SeriesDescription", "Structured report")), ""]
    for depth, text in _tree(report, 0):
        indent = "    " * depth
        width = DOCUMENT_WIDTH - 2 * TEXT_HEIGHT - font.getlength(indent)
        lines += [indent + line for line in break_lines(text, font, width)]
    lines = lines[:MOST_LINES]
    line_height = TEXT_HEIGHT * LINE_HEIGHT
    panel = Image.new("RGB", (DOCUMENT_WIDTH, round((len(lines) + 2) * line_height)), PAPER)
    drawing = ImageDraw.Draw(panel)
    for number, line in enumerate(lines, start=1):
        drawing.text((TEXT_HEIGHT, number * line_height), line, font=font, fill=INK)
    return panel


def _segments(result: Dataset) -> Iterator[tuple[str, Colour, NDArray[np.float64]]]:
    """Label (of the first outline), colour and outlines of each segment."""
    segmentation = Segmentation.from_dataset(result)
    source = result.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    for number in segmentation.segment_numbers:
        description = segmentation.get_segment_description(number)
        mask_hw = segmentation.get_pixels_by_source_instance(
            [source.ReferencedSOPInstanceUID], segment_numbers=[number], combine_segments=False
        )[0, ..., 0]
        for index, polygon in enumerate(outlines(mask_hw > 0, OUTLINE_TOLERANCE_PIXELS)):
            label = str(description.segment_label) if index == 0 else ""
            yield label, _colour(description.get("RecommendedDisplayCIELabValue")), polygon


def _graphics(result: Dataset) -> Iterator[tuple[str, Colour, NDArray[np.float64]]]:
    """Texts and polylines of a presentation state, in pixels of the film."""
    colours = {
        layer.GraphicLayer: _colour(layer.get("GraphicLayerRecommendedDisplayCIELabValue"))
        for layer in result.get("GraphicLayerSequence") or ()
    }
    columns, rows = result.DisplayedAreaSelectionSequence[0].DisplayedAreaBottomRightHandCorner
    for annotation in result.get("GraphicAnnotationSequence") or ():
        colour = colours.get(annotation.GraphicLayer, PLAIN)
        for graphic in annotation.get("GraphicObjectSequence") or ():
            yield "", colour, np.reshape(graphic.GraphicData, (-1, 2))
        for text in annotation.get("TextObjectSequence") or ():
            if "AnchorPoint" in text:
                place = np.array([text.AnchorPoint], dtype=np.float64)
            else:
                place = np.array([text.BoundingBoxTopLeftHandCorner], dtype=np.float64)
                if text.BoundingBoxAnnotationUnits == "DISPLAY":
                    place = place * [columns, rows]
            yield str(text.UnformattedTextValue), colour, place


def _colour(cielab: Sequence[int] | None) -> Colour:
    if cielab is None or len(cielab) != 3:
        return PLAIN
    red, green, blue = CIELabColor.from_dicom_value(list(cielab)).to_rgb(clip=True)
    return red, green, blue


def _tree(item: Dataset, depth: int) -> Iterator[tuple[int, str]]:
    """Depth and text of each content item (PS3.3 C.17.3), from the root down."""
    for child in item.get("ContentSequence") or ():
        name = _meaning(child, "ConceptNameCodeSequence")
        yield depth, ": ".join(part for part in (name, _value(child)) if part)
        yield from _tree(child, depth + 1)


def _value(item: Dataset) -> str:
    if "MeasuredValueSequence" in item and item.MeasuredValueSequence:
        measured = item.MeasuredValueSequence[0]
        unit = _meaning(measured, "MeasurementUnitsCodeSequence")
        return f"{float(measured.NumericValue):g} {unit}"
    if "ReferencedSOPSequence" in item:
        return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    for keyword in ("TextValue", "UID"):
        if keyword in item:
            return str(item[keyword].value)
    return _meaning(item, "ConceptCodeSequence")


def _meaning(item: Dataset, keyword: str) -> str:
    sequence = item.get(keyword)
    return str(sequence[0].get("CodeMeaning", "")) if sequence else ""

"""Lung outlines as a Grayscale Softcopy Presentation State (PS3.3 A.33.1).

It shows the original film with vector graphics over it: some kilobytes, and viewers that show no
segmentation open it. The greys stay those of the source, whose modality and VOI transformations it
must repeat, since a presentation state replaces them (PS3.4 N.2).
"""

from datetime import datetime
from typing import Final

import numpy as np
from highdicom.color import CIELabColor
from highdicom.pr import GraphicObject, TextObject
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from dicom_io.colours import LEFT_LUNG_RGB, RIGHT_LUNG_RGB
from dicom_io.contours import outlines
from dicom_io.findings import Findings
from dicom_io.graphic_style import Colour, line_style, text_style
from dicom_io.grey_transformation import add_grey_transformation
from dicom_io.legend import VERDICT_TEXT, percent_text
from dicom_io.result_object import RESEARCH_ONLY, complete, plain_text
from dicom_io.source_attributes import image_reference
from dicom_io.spacing import display_aspect, pixel_spacing
from dicom_io.uids import ResultKind, tracking_uid

TEXT_RGB: Final = (255, 255, 255)
# A corner that is left out lies at most this far from the outline.
TOLERANCE_OF_LONG_SIDE: Final = 1 / 2000
SMALLEST_TOLERANCE_PIXELS: Final = 0.5
MOST_OUTLINES_OF_A_LUNG: Final = 12
# Where the text lies in the displayed area, as shares of its width and height.
TEXT_BOX: Final = (0.01, 0.93, 0.99, 0.99)


def build_presentation_state(
    source: Dataset,
    findings: Findings,
    created: datetime,
    *,
    replaces_version: str | None = None,
) -> Dataset:
    """Build the presentation state of a reading.

    Args:
        source: the radiograph that was read.
        findings: what was found in it.
        created: when the result was made.
        replaces_version: the model version whose results these supersede, if any.

    Returns:
        A dataset with file meta information; the same for the same arguments.
    """
    result = Dataset()
    result.SOPClassUID = GrayscaleSoftcopyPresentationStateStorage
    result.Modality = "PR"
    result.ContentLabel = "LUNGS"
    result.ContentDescription = f"Lung contours. {RESEARCH_ONLY}"
    result.ContentCreatorName = ""
    result.PresentationCreationDate, result.PresentationCreationTime = "", ""
    result.ReferencedSeriesSequence = [_referenced_series(source)]
    result.DisplayedAreaSelectionSequence = [_displayed_area(source)]
    add_grey_transformation(result, source)

    layers, annotations = _graphics(source, findings)
    result.GraphicLayerSequence = layers
    result.GraphicAnnotationSequence = annotations
    return complete(
        result, source, findings.model, ResultKind.PRESENTATION_STATE, created, replaces_version
    )


def _referenced_series(source: Dataset) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedImageSequence = [image_reference(source)]
    return series


def _displayed_area(source: Dataset) -> Dataset:
    """The whole film, undistorted (PS3.3 C.10.4)."""
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [int(source.Columns), int(source.Rows)]
    area.PresentationSizeMode = "SCALE TO FIT"
    if pixel_spacing(source) is not None:
        area.PresentationPixelSpacing = source.PixelSpacing
    else:
        area.PresentationPixelAspectRatio = [round(1000 * display_aspect(source)), 1000]
    return area


def _graphics(source: Dataset, findings: Findings) -> tuple[list[Dataset], list[Dataset]]:
    """Graphic layers and the annotations on them: one each for the lungs, one for the text."""
    lungs = findings.lungs
    layers: list[Dataset] = []
    annotations: list[Dataset] = []
    for side, mask_hw, colour in (
        ("right", lungs.right_hw, RIGHT_LUNG_RGB),
        ("left", lungs.left_hw, LEFT_LUNG_RGB),
    ):
        if not mask_hw.any():
            continue
        name = f"{side.upper()}_LUNG"
        layers.append(_layer(name, len(layers) + 1, colour))
        annotation = _annotation(source, name)
        annotation.GraphicObjectSequence = _polylines(source, mask_hw, side, colour)
        letter = side[0].upper() + ("" if lungs.side_is_certain else "?")
        annotation.TextObjectSequence = [_letter(mask_hw, letter, colour)]
        annotations.append(annotation)

    layers.append(_layer("SUMMARY", len(layers) + 1, TEXT_RGB))
    summary = _annotation(source, "SUMMARY")
    text = TextObject(_summary(findings), units="DISPLAY", bounding_box=TEXT_BOX)
    text.TextStyleSequence = [text_style(TEXT_RGB)]
    summary.TextObjectSequence = [text]
    annotations.append(summary)
    return layers, annotations


def _layer(name: str, order: int, colour: Colour) -> Dataset:
    layer = Dataset()
    layer.GraphicLayer = name
    layer.GraphicLayerOrder = order
    layer.GraphicLayerRecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*colour).value)
    return layer


def _annotation(source: Dataset, layer: str) -> Dataset:
    annotation = Dataset()
    annotation.ReferencedImageSequence = [image_reference(source)]
    annotation.GraphicLayer = layer
    return annotation


def _polylines(
    source: Dataset, mask_hw: NDArray[np.bool_], side: str, colour: Colour
) -> list[Dataset]:
    long_side = max(mask_hw.shape)
    # Half a pixel is invisible on a film of usual size, and the width of a rib on a thumbnail.
    smallest = min(SMALLEST_TOLERANCE_PIXELS, long_side / 400)
    tolerance = max(smallest, TOLERANCE_OF_LONG_SIDE * long_side)
    graphics: list[Dataset] = [
        GraphicObject(
            graphic_type="POLYLINE",
            graphic_data=polygon,
            units="PIXEL",
            tracking_id=f"{side} lung",
            tracking_uid=tracking_uid(source.SOPInstanceUID, f"{side} lung"),
        )
        for polygon in outlines(mask_hw, tolerance)[:MOST_OUTLINES_OF_A_LUNG]
    ]
    for graphic in graphics:
        graphic.LineStyleSequence = [line_style(colour)]
    return graphics


def _letter(mask_hw: NDArray[np.bool_], text: str, colour: Colour) -> Dataset:
    """The side's letter, anchored at the highest point of the lung."""
    top = int(np.flatnonzero(mask_hw.any(axis=1))[0])
    column = float(np.flatnonzero(mask_hw[top]).mean()) + 0.5
    letter = TextObject(
        text, units="PIXEL", anchor_point=(column, float(top)), anchor_point_visible=False
    )
    letter.TextStyleSequence = [text_style(colour)]
    return letter


def _summary(findings: Findings) -> str:
    model = findings.model
    return plain_text(
        f"{model.name} {model.version}. {VERDICT_TEXT[findings.verdict]}, probability "
        f"{percent_text(findings.probability)} %, operating point "
        f"{100 * findings.operating_point:.0f} %. {RESEARCH_ONLY}",
        1024,
    )

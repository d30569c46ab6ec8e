"""One radiograph, read: from the DICOM object to findings.

The path of the data, in the order in which it happens. Worker tasks and the batch command both
come through here, so both say the same of the same film.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_io.eligibility import require_frontal_chest
from dicom_io.errors import CheckpointError, ImageRejected, RejectionReason
from dicom_io.findings import Findings, ModelIdentity, Verdict
from dicom_io.laterality import require_lung_pair, split_lungs
from dicom_io.pixels import Radiograph, decode, display_image, map_on_source
from dicom_io.spacing import display_aspect, lung_area_cm2, lung_area_percent
from model.checkpoint import unlearnt
from model.image_table import served_image
from model.predictor import Predictor


@dataclass(frozen=True)
class Reading:
    """What came out of one radiograph.

    Attributes:
        findings: verdict, probability, lungs and saliency on the source's pixel grid.
        display_hw: uint8, (rows, columns); the film as a reader sees it.
        lung_area_percent: share of the film covered by both lungs, 0 to 100.
        lung_area_cm2: both lungs in cm2, or None where the source has no Pixel Spacing.
    """

    findings: Findings
    display_hw: NDArray[np.uint8]
    lung_area_percent: float
    lung_area_cm2: float | None


def load_model(directory: Path, device: str) -> Predictor:
    """Load a model that can answer everything that a result says.

    Raises:
        CheckpointError: the directory is missing or damaged, or the model never learnt to find
            lungs or to tell classes apart.
    """
    predictor = Predictor.load(directory, device)
    if missing := unlearnt(predictor.card):
        raise CheckpointError(
            f"the model in {directory} never learnt {' or '.join(missing)}, which every result "
            "holds; serve a model that learnt both tasks"
        )
    return predictor


def read_radiograph(
    dataset: Dataset, predictor: Predictor, decode: Callable[[Dataset], Radiograph] = decode
) -> Reading:
    """Read one radiograph.

    Args:
        dataset: a DICOM object with pixel data and file meta information.
        predictor: the model.
        decode: decodes the object; that of a ``DecodingProcess`` where it comes from outside.

    Returns:
        The reading; the same for the same dataset and model.

    Raises:
        ImageRejected: the object is no readable frontal chest radiograph, and why.
        DecodingError: a decoding process gave no answer.
    """
    require_frontal_chest(dataset)
    radiograph = decode(dataset)
    findings = find(radiograph, dataset, predictor)
    lungs_hw = findings.lungs.right_hw | findings.lungs.left_hw
    return Reading(
        findings=findings,
        display_hw=display_image(radiograph),
        lung_area_percent=lung_area_percent(lungs_hw),
        lung_area_cm2=lung_area_cm2(lungs_hw, dataset),
    )


def find(radiograph: Radiograph, dataset: Dataset, predictor: Predictor) -> Findings:
    """Let the network read a decoded film and bring its answer onto the source's pixel grid.

    Raises:
        ImageRejected: the image is unlike the training films, or shows no pair of lungs.
    """
    prediction = predictor.predict(served_image(radiograph, predictor.card.input_side))
    gate = predictor.card.gate
    if prediction.is_unlike_training:
        raise ImageRejected(RejectionReason.UNLIKE_TRAINING)
    rows, columns = radiograph.rows, radiograph.columns
    lungs_hw = map_on_source(prediction.lung_probability_hw, rows, columns) >= 0.5
    require_lung_pair(lungs_hw, display_aspect(dataset))
    return Findings(
        model=identity_of(predictor),
        verdict=Verdict.PNEUMONIA if prediction.is_pneumonia else Verdict.NORMAL,
        probability=prediction.probability,
        operating_point=predictor.card.calibration.operating_point,
        lungs=split_lungs(lungs_hw, dataset, radiograph.grey_hw),
        saliency_hw=np.clip(map_on_source(prediction.saliency_hw, rows, columns), 0.0, 1.0),
        gate_score=prediction.gate_score,
        gate_threshold=gate.threshold if gate is not None else None,
    )


def identity_of(predictor: Predictor) -> ModelIdentity:
    """Name, version and hash of a loaded model, as results state them."""
    card = predictor.card
    return ModelIdentity(card.name, card.version, card.weights_sha256)

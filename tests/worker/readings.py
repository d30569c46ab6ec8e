"""Real small films, and a way to read them that needs no network: lungs where they are drawn."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_io.access_control import AssociationFacts
from dicom_io.eligibility import require_frontal_chest
from dicom_io.findings import Findings, ModelIdentity
from dicom_io.instance_header import read_identifiers
from dicom_io.intake import Intake, ReceivedInstance
from dicom_io.pixels import decode, display_image
from dicom_io.spacing import lung_area_cm2, lung_area_percent
from dicom_io.storage import InstanceStore
from tests.dicom_io.sources import MODEL, findings_in, given, radiograph


@dataclass(frozen=True)
class DrawnReading:
    """What the drawing says of a film."""

    findings: Findings
    display_hw: NDArray[np.uint8]
    lung_area_percent: float
    lung_area_cm2: float | None


def reader_of(model: ModelIdentity = MODEL) -> Callable[[Dataset], DrawnReading]:
    """A reading function of a model: the node's own path but for the network."""

    def read(dataset: Dataset) -> DrawnReading:
        require_frontal_chest(dataset)
        findings = findings_in(dataset, model=model)
        lungs_hw = findings.lungs.right_hw | findings.lungs.left_hw
        return DrawnReading(
            findings=findings,
            display_hw=display_image(decode(dataset)),
            lung_area_percent=lung_area_percent(lungs_hw),
            lung_area_cm2=lung_area_cm2(lungs_hw, dataset),
        )

    return read


def chest_film(study_uid: str, number: int = 1, **attributes: object) -> Dataset:
    """A small chest film of a study."""
    return radiograph(
        given(
            StudyInstanceUID=study_uid,
            SeriesInstanceUID=f"{study_uid}.1",
            SOPInstanceUID=f"{study_uid}.1.{number}",
            **attributes,
        ),
        rows=80,
        columns=72,
    )


def bring(
    dataset: Dataset, store: InstanceStore, intake: Intake, association: AssociationFacts
) -> ReceivedInstance:
    """Store a film and report it, as the listener does."""
    stored = store.keep_dataset(dataset)
    encoded = store.read_encoded_dataset(stored.relative_path)
    identifiers = read_identifiers(encoded, stored.transfer_syntax_uid)
    instance = ReceivedInstance(
        stored=stored,
        sop_class_uid=stored.sop_class_uid,
        sop_instance_uid=stored.sop_instance_uid,
        study_uid=identifiers.study_uid,
        series_uid=identifiers.series_uid,
        problem=identifiers.problem,
    )
    intake.instance_stored(association, instance)
    return instance

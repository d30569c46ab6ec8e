"""The coded concepts of the report: standard ones where there are any, else of our own scheme."""

from typing import Final

from pydicom import Dataset
from pydicom.sr.coding import Code

from dicom_io.spacing import SpacingPlane
from dicom_io.uids import MANUFACTURER

PRIVATE_SCHEME: Final = "99MULTIMIX"


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


PLAIN_CHEST_RADIOGRAPH: Final = Code("399208008", "SCT", "Plain X-ray of chest")
PNEUMONIA: Final = Code("233604007", "SCT", "Pneumonia")
LUNG: Final = Code("39607008", "SCT", "Lung")
RIGHT: Final = Code("24028007", "SCT", "Right")
LEFT: Final = Code("7771000", "SCT", "Left")

PRESENCE: Final = Code("705057003", "SCT", "Presence")
PRESENT: Final = Code("52101004", "SCT", "Present")
ABSENT: Final = Code("2667000", "SCT", "Absent")
INDETERMINATE: Final = Code("82334004", "SCT", "Indeterminate")

CERTAINTY_OF_FINDING: Final = Code("111012", "DCM", "Certainty of Finding")
AREA: Final = Code("42798000", "SCT", "Area")
COMMENT: Final = Code("121106", "DCM", "Comment")
ARTIFICIAL_INTELLIGENCE: Final = Code("123110", "DCM", "Artificial Intelligence")

OPERATING_POINT: Final = _private("OPERATING_POINT", "Operating point")
UNLIKENESS: Final = _private("UNLIKENESS", "Unlikeness to training images")
UNLIKENESS_LIMIT: Final = _private("UNLIKENESS_LIMIT", "Limit of unlikeness")
SHARE_OF_FILM: Final = _private("SHARE_OF_FILM", "Share of the film")

PART_OF_SAME_RESULT: Final = _private("SAME_RESULT", "Part of the same result")

LATERALITY_ORIGIN: Final = _private("LATERALITY_ORIGIN", "Origin of laterality")
LATERALITY_STATED: Final = _private("LATERALITY_STATED", "Stated by the source")
LATERALITY_ASSUMED: Final = _private("LATERALITY_ASSUMED", "Assumed")

SPACING_METHOD: Final = {
    SpacingPlane.PATIENT: _private("SPACING_CALIBRATED", "Calibrated pixel spacing"),
    SpacingPlane.UNKNOWN: _private("SPACING_UNKNOWN", "Pixel spacing of unknown calibration"),
    SpacingPlane.DETECTOR: _private("SPACING_DETECTOR", "Pixel spacing at the detector"),
}

PERCENT: Final = Code("%", "UCUM", "Percent")
SQUARE_CENTIMETRE: Final = Code("cm2", "UCUM", "square centimeter")
PIXELS: Final = Code("{pixels}", "UCUM", "Pixels")
NO_UNITS: Final = Code("1", "UCUM", "no units")


def private_scheme() -> Dataset:
    """An item of Coding Scheme Identification (PS3.3 C.12.1.1.7) for our own concepts."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = PRIVATE_SCHEME
    scheme.CodingSchemeName = "MultiMix node"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    return scheme

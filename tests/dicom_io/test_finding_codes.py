import pytest
from pydicom.sr.coding import Code

from dicom_io import finding_codes

TABLES = {
    name: table for name, table in vars(finding_codes).items() if isinstance(table, frozenset)
}
# SNOMED RT codes that the dictionary of pydicom has no counterpart of.
UNKNOWN_TO_PYDICOM = {"D2-0061C"}


@pytest.mark.parametrize("name", TABLES)
def test_every_older_code_stands_beside_its_present_counterpart(name: str) -> None:
    older = {value for scheme, value in TABLES[name] if scheme == "SRT"} - UNKNOWN_TO_PYDICOM
    present = [Code(value, "SCT", "") for scheme, value in TABLES[name] if scheme == "SCT"]
    for value in older:
        assert Code(value, "SRT", "") in present


def test_no_answer_means_two_things() -> None:
    answers = [finding_codes.PRESENT, finding_codes.ABSENT, finding_codes.OPEN]
    classes = [finding_codes.PNEUMONIA, finding_codes.NORMAL, finding_codes.OPEN]
    for tables in (answers, classes):
        assert sum(map(len, tables)) == len(frozenset.union(*tables))

"""Independent judges over every kind of result and every kind of source."""

import json
from datetime import UTC, datetime
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.uid import SegmentationStorage

from dicom_io.pixels import decode, display_image
from dicom_io.result_object import decoded, encoded
from dicom_io.result_set import build_result_set
from dicom_io.segmentation import build_segmentation
from dicom_io.uids import ResultKind
from tests.dicom_io.sources import SOURCES, findings_in, given, radiograph, with_raw_name
from tests.orthanc import running_orthanc
from tests.programs import output_of, require_program

pytestmark = pytest.mark.interop

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)

# What dciodvfy says of every object of a kind, each with its reason.
EXPLAINED_BY_KIND = {
    # Our own coding scheme, which the objects identify.
    ResultKind.SECONDARY_CAPTURE: ["<99MULTIMIX>"],
    ResultKind.REPORT: ["<99MULTIMIX>"],
    # Styles came to the Graphic Annotation Module (PS3.3 C.10.5) after this judge was written.
    ResultKind.PRESENTATION_STATE: ["StyleSequence(0070,023"],
    # It knows no label map; read as a segmentation, these are what makes one (PS3.3 C.8.20.2): the
    # type, the background as segment 0, and numbers in pixels instead of one for each frame.
    ResultKind.LABEL_MAP_SEGMENTATION: [
        "Unrecognized enumerated value = <LABELMAP>",
        "SegmentNumber not monotonically increasing from one",
        "SegmentNumber(0062,0004)[1]> - Value is zero",
        "SegmentIdentificationSequence(0062,000a)> - Missing attribute",
    ],
}
# Warnings that the source's own content causes: an empty type 2 of the source stays empty.
EXPLAINED_BY_SOURCE = {
    "missing type 2": ["needed to build DICOMDIR"],
    "empty type 2": ["needed to build DICOMDIR"],
}


def build_all(source):
    film_hw = display_image(decode(source))
    return build_result_set(source, film_hw, findings_in(source), CREATED, set(ResultKind))


def build(kind, source):
    """One object of a set of all kinds, with its references to the others."""
    return build_all(source)[kind]


@cache
def files_of(name):
    """The results of a source as the bytes of files, by kind."""
    return {kind: encoded(result) for kind, result in build_all(SOURCES[name]()).items()}


KINDS = list(ResultKind)


def kind_name(kind):
    return kind.value


@pytest.mark.parametrize("kind", KINDS, ids=kind_name)
@pytest.mark.parametrize("name", SOURCES)
def test_dciodvfy_finds_no_error_and_no_unexplained_warning(kind, name, tmp_path):
    path = tmp_path / "result.dcm"
    path.write_bytes(files_of(name)[kind])
    if kind is ResultKind.LABEL_MAP_SEGMENTATION:
        result = decoded(files_of(name)[kind])
        result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = SegmentationStorage
        path.write_bytes(encoded(result))
    lines = output_of("dciodvfy", "-new", path).splitlines()
    complaints = [line for line in lines if line.startswith(("Error", "Warning"))]
    explained = EXPLAINED_BY_KIND.get(kind, []) + EXPLAINED_BY_SOURCE.get(name, [])
    assert [line for line in complaints if not any(text in line for text in explained)] == []


@pytest.mark.parametrize("kind", KINDS, ids=kind_name)
@pytest.mark.parametrize("name", SOURCES)
def test_dcmtk_reads_every_element_of_a_result(kind, name, tmp_path):
    path = tmp_path / "result.dcm"
    path.write_bytes(files_of(name)[kind])
    read = json.loads(output_of("dcm2json", path))
    assert set(read) == {f"{element.tag:08X}" for element in decoded(files_of(name)[kind])}


def test_dcmtk_draws_the_secondary_capture_pixel_for_pixel(tmp_path):
    result = build(ResultKind.SECONDARY_CAPTURE, radiograph())
    path, drawn = tmp_path / "result.dcm", tmp_path / "result.ppm"
    path.write_bytes(encoded(result))
    output_of("dcm2pnm", "+op", path, drawn)
    header = f"P6\n{result.Columns} {result.Rows}\n255\n".encode()
    content = drawn.read_bytes()
    assert content.startswith(header)
    assert content[len(header) :] == result.pixel_array.tobytes()


@pytest.mark.parametrize("name", SOURCES)
def test_dcmtk_reads_the_report_as_a_document(name, tmp_path):
    path = tmp_path / "result.dcm"
    path.write_bytes(files_of(name)[ResultKind.REPORT])
    text = output_of("dsrdump", path)
    assert not [line for line in text.splitlines() if line.startswith(("E:", "W:", "F:"))]
    assert '"Certainty of Finding")="87.0" (%,UCUM,"Percent")' in text
    assert '"Presence")=(52101004,SCT,"Present")' in text


# dcmtk opens no presentation state without a patient's name, though it may be empty (type 2).
NAMED_SOURCES = [name for name in SOURCES if "type 2" not in name]


@pytest.mark.parametrize("name", NAMED_SOURCES)
def test_dcmtk_shows_the_same_greys_with_the_presentation_state_as_without(name, tmp_path):
    source = SOURCES[name]()
    image, state = tmp_path / "image.dcm", tmp_path / "state.dcm"
    source.save_as(image)
    state.write_bytes(encoded(build(ResultKind.PRESENTATION_STATE, source)))
    output_of("dcmp2pgm", image, tmp_path / "without.pgm")
    output_of("dcmp2pgm", "-p", state, image, tmp_path / "with.pgm")
    assert (tmp_path / "with.pgm").read_bytes() == (tmp_path / "without.pgm").read_bytes()


def test_dcmtk_finds_a_square_in_its_corner_of_an_oriented_film_with_oblong_pixels(tmp_path):
    source = radiograph(given(PatientOrientation=["R", "F"], PixelSpacing=[1.0, 2.0]), rows=320)
    findings = findings_in(source)
    findings.lungs.right_hw[:] = False
    findings.lungs.right_hw[2:9, -6:-1] = True
    findings.lungs.left_hw[:] = False
    path, raw = tmp_path / "result.dcm", tmp_path / "raw"
    path.write_bytes(encoded(build_segmentation(source, findings, CREATED)))
    raw.mkdir()
    output_of("dcmdump", "+W", raw, "+P", "7fe0,0010", path)
    [bits] = raw.iterdir()
    first_hw = np.unpackbits(np.frombuffer(bits.read_bytes(), np.uint8), bitorder="little")
    first_hw = first_hw[: 320 * source.Columns].reshape(320, source.Columns)
    assert np.array_equal(first_hw, findings.lungs.right_hw)
    assert [int(edge) for edge in np.argwhere(first_hw).min(axis=0)] == [2, source.Columns - 6]


@pytest.mark.parametrize(
    ("character_set", "raw_name", "readable"),
    [
        ("ISO_IR 100", "Müller^Jürgen".encode("latin-1"), "Müller^Jürgen"),
        ("ISO_IR 192", "王^小東".encode(), "王^小東"),
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        (["", "ISO 2022 IR 149"], b"=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "=洪^吉洞"),
        (["", "ISO 2022 IR 58"], b"=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", "=张^小东"),
    ],
)
@pytest.mark.parametrize("kind", KINDS, ids=kind_name)
def test_names_are_readable_in_every_character_set(
    kind, character_set, raw_name, readable, tmp_path
):
    source = with_raw_name(raw_name, character_set)
    path = tmp_path / "result.dcm"
    path.write_bytes(encoded(build(kind, source)))
    require_program("dcmdump")
    assert f"[{readable}]" in output_of("dcmdump", "+U8", "+P", "0010,0010", path)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


def uids_of(dataset):
    return dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID


def test_orthanc_takes_every_kind_and_returns_it_as_it_was(orthanc):
    source = radiograph(uid="1.2.826.0.1.3680043.8.498.25")
    film_hw = display_image(decode(source))
    built = build_result_set(source, film_hw, findings_in(source), CREATED, set(ResultKind))
    client = DICOMwebClient(orthanc.dicomweb_url)
    for result in built.values():
        orthanc.upload(encoded(result))
    stored = client.search_for_instances(study_instance_uid=source.StudyInstanceUID)
    assert len(stored) == len(ResultKind)
    for result in built.values():
        returned = client.retrieve_instance(*uids_of(result))
        assert returned == decoded(encoded(result))


def frames_by_dicomweb(orthanc, dataset, numbers):
    return DICOMwebClient(orthanc.dicomweb_url).retrieve_instance_frames(
        *uids_of(dataset),
        frame_numbers=numbers,
        media_types=(("application/octet-stream", "1.2.840.10008.1.2.1"),),
    )


def test_orthanc_serves_each_lung_as_a_frame_over_dicomweb(orthanc):
    # Orthanc cuts frames out of packed bits only where a row is whole bytes.
    source = radiograph(uid="1.2.826.0.1.3680043.8.498.21", columns=136)
    findings = findings_in(source)
    result = build_segmentation(source, findings, CREATED)
    orthanc.upload(encoded(result))
    masks = (findings.lungs.right_hw, findings.lungs.left_hw)
    for frame, mask_hw in zip(frames_by_dicomweb(orthanc, result, [1, 2]), masks, strict=True):
        bits = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")
        assert np.array_equal(bits.reshape(mask_hw.shape), mask_hw)


def test_orthanc_serves_the_label_map_of_a_film_of_any_width_over_dicomweb(orthanc):
    source = radiograph(uid="1.2.826.0.1.3680043.8.498.24", columns=133)
    lungs = findings_in(source).lungs
    result = build_segmentation(source, findings_in(source), CREATED, label_map=True)
    orthanc.upload(encoded(result))
    [frame] = frames_by_dicomweb(orthanc, result, [1])
    numbers_hw = np.frombuffer(frame, np.uint8).reshape(lungs.right_hw.shape)
    assert np.array_equal(numbers_hw, lungs.right_hw + 2 * lungs.left_hw)


def test_orthanc_renders_the_secondary_capture_as_it_was_drawn(orthanc):
    result = build(ResultKind.SECONDARY_CAPTURE, radiograph(uid="1.2.826.0.1.3680043.8.498.22"))
    orthanc.upload(encoded(result))
    rendered = DICOMwebClient(orthanc.dicomweb_url).retrieve_instance_rendered(
        *uids_of(result), media_types=("image/png",)
    )
    assert np.array_equal(np.asarray(Image.open(BytesIO(rendered))), result.pixel_array)


@pytest.mark.parametrize(
    ("character_set", "raw_name", "ideographic"),
    [
        (["", "ISO 2022 IR 87"], b"Y^T=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "山田^太郎"),
        ("ISO_IR 192", "W^X=王^小東".encode(), "王^小東"),
        ("GB18030", "W^X=王^小东".encode("gb18030"), "王^小东"),
    ],
)
def test_orthanc_reads_the_names(orthanc, character_set, raw_name, ideographic):
    source = with_raw_name(
        raw_name, character_set, uid=f"1.2.826.0.1.3680043.8.498.23.{len(raw_name)}"
    )
    result = build(ResultKind.SEGMENTATION, source)
    orthanc.upload(encoded(result))
    metadata = DICOMwebClient(orthanc.dicomweb_url).retrieve_instance_metadata(*uids_of(result))
    assert ideographic in str(metadata["00100010"]["Value"][0])

"""Studies fetched from Orthanc and results stored there, by every way that it offers."""

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicom_io.delivery_status import Disposition
from dicom_io.dicomweb import DicomWebService
from dicom_io.dicomweb_retrieval import list_study, retrieve_study
from dicom_io.dicomweb_storage import store
from dicom_io.errors import AssociationFailed, StorageError
from dicom_io.part10 import dataset_offset
from dicom_io.remote import RemoteAE
from dicom_io.retrieval import get_study, list_instances, move_study
from tests.dicom_io.peers import DX, radiograph, storage_peer
from tests.orthanc import running_orthanc

pytestmark = pytest.mark.interop
UNKNOWN_STUDY = "2.25.999"


def file_of(film) -> bytes:
    buffer = BytesIO()
    film.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def films():
    """Two films of one study; the second one compressed."""
    first, second = radiograph(1), radiograph(2)
    second.compress(RLELossless, generate_instance_uid=False)
    return {str(film.SOPInstanceUID): file_of(film) for film in (first, second)}


@pytest.fixture(scope="module")
def mover():
    with storage_peer([(DX, [ExplicitVRLittleEndian, RLELossless])]) as peer:
        yield peer


@pytest.fixture(scope="module")
def archive(tmp_path_factory, films, mover):
    folder = tmp_path_factory.mktemp("orthanc")
    modalities = {"mover": ["MOVER", "127.0.0.1", mover.port]}
    with running_orthanc(
        folder,
        DicomModalities=modalities,
        DicomAlwaysAllowGet=True,
        DicomAlwaysAllowMove=True,
        DicomAlwaysAllowFind=True,
    ) as orthanc:
        for content in films.values():
            orthanc.upload(content)
        yield orthanc


@pytest.fixture
def remote(archive):
    return RemoteAE(archive.ae_title, "127.0.0.1", archive.dicom_port)


STUDY = str(radiograph().StudyInstanceUID)


def test_the_archive_says_which_films_it_has(archive, remote, films):
    service = DicomWebService(archive.dicomweb_url)
    assert list_instances(remote, STUDY) == list_study(service, STUDY) == set(films)
    assert list_instances(remote, UNKNOWN_STUDY) == list_study(service, UNKNOWN_STUDY) == set()


def test_c_get_brings_every_film_as_the_archive_has_it(remote, films):
    taken = []
    outcome = get_study(remote, STUDY, taken.append)
    assert (outcome.taken, outcome.failed, outcome.problem) == (2, 0, "")
    assert_same(taken, films)


def test_wado_rs_brings_every_film_as_the_archive_has_it(archive, films):
    taken = []
    service = DicomWebService(archive.dicomweb_url)
    outcome = retrieve_study(service, STUDY, taken.append)
    assert (outcome.taken, outcome.failed, outcome.problem) == (2, 0, "")
    assert_same(taken, films)


def assert_same(taken, films):
    for retrieved in taken:
        content = films[retrieved.sop_instance_uid]
        assert retrieved.encoded_dataset == content[dataset_offset(content) :]
        meta = dcmread(BytesIO(content)).file_meta
        assert retrieved.transfer_syntax_uid == meta.TransferSyntaxUID
        assert retrieved.sop_class_uid == meta.MediaStorageSOPClassUID


def test_c_move_sends_every_film_to_the_listener(remote, mover, films):
    outcome = move_study(remote, STUDY, "MOVER")
    assert (outcome.taken, outcome.failed, outcome.problem) == (2, 0, "")
    assert {str(received.sop_instance_uid) for received in mover.received} == set(films)


def test_c_move_to_a_listener_that_the_archive_does_not_know_says_so(remote):
    outcome = move_study(remote, STUDY, "NOBODY")
    assert outcome.taken == 0
    assert "ended with status" in outcome.problem


def test_a_study_that_the_archive_does_not_have_brings_nothing(archive, remote):
    taken = []
    by_web = retrieve_study(DicomWebService(archive.dicomweb_url), UNKNOWN_STUDY, taken.append)
    by_get = get_study(remote, UNKNOWN_STUDY, taken.append)
    assert by_web.taken == by_get.taken == len(taken) == 0


def test_a_film_that_cannot_be_kept_is_told_and_the_others_come(archive, remote):
    def take_the_second(retrieved):
        if retrieved.sop_instance_uid == str(radiograph(1).SOPInstanceUID):
            raise StorageError("no room")

    service = DicomWebService(archive.dicomweb_url)
    for outcome in (
        get_study(remote, STUDY, take_the_second),
        retrieve_study(service, STUDY, take_the_second),
    ):
        assert (outcome.taken, outcome.failed) == (1, 1)
        assert "no room" in outcome.problem


def test_stow_rs_stores_what_wado_rs_gives_back(archive, tmp_path):
    film = radiograph(7, study=7)
    path = tmp_path / "film.dcm"
    path.write_bytes(file_of(film))
    service = DicomWebService(archive.dicomweb_url)
    for _ in range(2):  # the second time it is there already
        (outcome,) = store([path], service)
        assert outcome.disposition in (Disposition.DELIVERED, Disposition.DELIVERED_WITH_WARNING)
    taken = []
    assert retrieve_study(service, str(film.StudyInstanceUID), taken.append).taken == 1
    content = path.read_bytes()
    assert taken[0].encoded_dataset == content[dataset_offset(content) :]


def test_a_service_that_wants_a_password_is_told_apart(tmp_path):
    with running_orthanc(
        tmp_path, AuthenticationEnabled=True, RegisteredUsers={"user": "secret"}
    ) as orthanc:
        path = tmp_path / "film.dcm"
        path.write_bytes(file_of(radiograph(8, study=8)))
        with pytest.raises(AssociationFailed) as failure:
            store([path], DicomWebService(orthanc.dicomweb_url))
        assert not failure.value.transient
        allowed = DicomWebService(orthanc.dicomweb_url, authorization="Basic dXNlcjpzZWNyZXQ=")
        assert store([path], allowed)[0].disposition is Disposition.DELIVERED

"""The listener and the sender with dcmtk's storescu, echoscu and storescp at the other end."""

from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from dicom_io.errors import AssociationFailed
from dicom_io.listener import AllowedPeer, Listener, ListenerConfiguration
from dicom_io.part10 import dataset_offset
from dicom_io.sender import Disposition, RemoteAE, echo, send
from dicom_io.storage import InstanceStore
from dicom_io.transfer_syntaxes import sample_object
from tests.dicom_io.peers import RecordingIntake, radiograph
from tests.interop.dcmtk import storescp
from tests.programs import output_of

pytestmark = pytest.mark.interop

REAL_FILMS = Path(__file__).parents[3] / "shared" / "data" / "dicom"


@pytest.fixture
def store(tmp_path):
    return InstanceStore(tmp_path / "store")


@pytest.fixture
def intake():
    return RecordingIntake()


def listening(store, intake, **settings) -> Listener:
    return Listener(ListenerConfiguration(ae_title="MULTIMIX", **settings), store, intake)


def written(folder: Path, dataset, name: str = "film.dcm") -> Path:
    path = folder / name
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def dataset_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return content[dataset_offset(content) :]


def test_echoscu_is_answered(store, intake):
    with listening(store, intake) as listener:
        printed = output_of("echoscu", "-v", "127.0.0.1", str(listener.port))
    assert "Received Echo Response (Success)" in printed


def test_echoscu_under_an_unknown_title_is_rejected_for_good(store, intake):
    allowed = (AllowedPeer("MODALITY"),)
    with listening(store, intake, allowed_calling=allowed) as listener:
        printed = output_of("echoscu", "-v", "-aet", "STRANGER", "127.0.0.1", str(listener.port))
        known = output_of("echoscu", "-v", "-aet", "MODALITY", "127.0.0.1", str(listener.port))
    assert "Rejected Permanent" in printed
    assert "Calling AE Title Not Recognized" in printed
    assert "Received Echo Response (Success)" in known


@pytest.mark.parametrize(
    ("make", "propose"),
    [
        (["dcmconv", "+te"], "-xe"),
        (["dcmconv", "+ti"], "-xi"),
        (["dcmconv", "+tb"], "-xb"),
        (["dcmconv", "+td"], "-xd"),
        (["dcmcrle"], "-xr"),
        (["dcmcjpeg", "+e1"], "-xs"),
        (["dcmcjpeg", "+ee"], "-xx"),
        (["dcmcjpls", "+el"], "-xt"),
        (["dcmcjpls", "+en"], "-xu"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_storescu_sends_what_dcmtk_can_encode_and_it_is_kept_bit_for_bit(
    store, intake, tmp_path, make, propose
):
    plain = written(tmp_path, radiograph(side=128))
    film = tmp_path / "sent.dcm"
    printed = output_of(make[0], *make[1:], plain, film)
    assert film.exists(), printed
    with listening(store, intake) as listener:
        printed = output_of("storescu", "-v", propose, "127.0.0.1", str(listener.port), film)
        assert "Received Store Response (Success)" in printed, printed
        [instance] = intake.wait_for("stored")
        assert intake.wait_for("ended") == [True]
    assert instance.study_uid == radiograph().StudyInstanceUID
    assert instance.stored.transfer_syntax_uid == dcmread(film).file_meta.TransferSyntaxUID
    kept = store.read(instance.stored.relative_path)
    assert kept.PixelData == dcmread(film).PixelData
    assert kept.pixel_array.shape == (128, 128)


def test_storescu_sends_a_whole_folder_in_one_association(store, intake, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(20):
        written(folder, radiograph(number), f"{number}.dcm")
    with listening(store, intake) as listener:
        output_of("storescu", "+sd", "127.0.0.1", str(listener.port), folder)
        intake.wait_for("ended")
    assert len(intake.of_kind("stored")) == 20
    assert len(intake.of_kind("accepted")) == 1


@pytest.mark.skipif(not REAL_FILMS.is_dir(), reason="the real films are not beside this project")
def test_real_films_sent_by_storescu_are_kept_bit_for_bit(store, intake):
    proposal = {"1.2.840.10008.1.2.4.50": "-xy", "1.2.840.10008.1.2.4.57": "-xs"}
    proposal |= {"1.2.840.10008.1.2.4.70": "-xs", "1.2.840.10008.1.2.4.80": "-xt"}
    proposal |= {"1.2.840.10008.1.2.4.90": "-xv", "1.2.840.10008.1.2.5": "-xr"}
    films = sorted(REAL_FILMS.glob("*.dcm"))
    with listening(store, intake) as listener:
        for film in films:
            syntax = dcmread(film, stop_before_pixels=True).file_meta.TransferSyntaxUID
            printed = output_of(
                "storescu", "-v", proposal[syntax], "127.0.0.1", str(listener.port), film
            )
            assert "Received Store Response (Success)" in printed, printed
        received = intake.wait_for("stored", len(films))
    for film, instance in zip(films, received, strict=True):
        kept = store.read(instance.stored.relative_path)
        assert kept.PixelData == dcmread(film).PixelData
        assert kept.pixel_array.size


def test_storescp_receives_our_files_bit_for_bit(store, tmp_path):
    stored = [store.keep_dataset(radiograph(number)) for number in range(5)]
    paths = [store.path_of(s.relative_path) for s in stored]
    with storescp(tmp_path / "pacs") as pacs:
        remote = RemoteAE("PACS", "127.0.0.1", pacs.port)
        echo(remote)
        outcomes = send(paths, remote)
    assert {o.disposition for o in outcomes} == {Disposition.DELIVERED}
    received = {dataset_bytes(path) for path in (tmp_path / "pacs").iterdir()}
    assert received == {dataset_bytes(path) for path in paths}


def test_a_compressed_film_is_decompressed_for_a_storescp_that_takes_plain_ones_only(tmp_path):
    film = sample_object(JPEGBaseline8Bit, 8)
    film.StudyInstanceUID, film.SeriesInstanceUID = "2.25.2", "2.25.3"
    with storescp(tmp_path / "pacs") as pacs:
        [outcome] = send([written(tmp_path, film)], RemoteAE("PACS", "127.0.0.1", pacs.port))
    assert outcome.disposition is Disposition.DELIVERED
    [path] = (tmp_path / "pacs").iterdir()
    assert dcmread(path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (dcmread(path).pixel_array == dcmread(tmp_path / "film.dcm").pixel_array).all()


def test_a_compressed_film_stays_compressed_for_a_storescp_that_takes_everything(tmp_path):
    film = sample_object(JPEGBaseline8Bit, 8)
    film.StudyInstanceUID, film.SeriesInstanceUID = "2.25.2", "2.25.3"
    path = written(tmp_path, film)
    with storescp(tmp_path / "pacs", "+xa") as pacs:
        [outcome] = send([path], RemoteAE("PACS", "127.0.0.1", pacs.port))
    assert outcome.disposition is Disposition.DELIVERED
    [received] = (tmp_path / "pacs").iterdir()
    assert dataset_bytes(received) == dataset_bytes(path)


def test_a_storescp_that_aborts_during_an_object_leaves_it_to_be_tried_again(tmp_path):
    with storescp(tmp_path / "pacs", "--abort-during") as pacs:
        outcomes = send([radiograph(1), radiograph(2)], RemoteAE("PACS", "127.0.0.1", pacs.port))
    assert {o.disposition for o in outcomes} == {Disposition.RETRY}


def test_a_storescp_that_refuses_the_association_is_a_failure(tmp_path):
    with storescp(tmp_path / "pacs", "--refuse") as pacs, pytest.raises(AssociationFailed):
        send([radiograph(1)], RemoteAE("PACS", "127.0.0.1", pacs.port))

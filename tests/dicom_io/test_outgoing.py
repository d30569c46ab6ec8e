"""In what form objects go out: bit for bit where the peer takes them as they are."""

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
)

from dicom_io.outgoing import batches, contexts_for, examine
from dicom_io.part10 import file_header
from dicom_io.sender import Disposition, send
from dicom_io.storage import InstanceStore
from dicom_io.transfer_syntaxes import sample_film, sample_object
from tests.dicom_io.peers import DX, encoded, radiograph, remote, storage_peer

UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def file_of(folder, dataset, name="film.dcm"):
    path = folder / name
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def compressed(syntax):
    film = sample_object(syntax, 12)
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
    film.StudyInstanceUID, film.SeriesInstanceUID = "2.25.2", "2.25.3"
    return film


def test_files_go_out_bit_for_bit_in_one_association(tmp_path):
    store = InstanceStore(tmp_path)
    films = [radiograph(number) for number in range(1, 6)]
    paths = [store.path_of(store.keep_dataset(film).relative_path) for film in films]
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        outcomes = send(paths, remote(peer.port))
    assert len(peer.accepted) == 1
    assert {outcome.disposition for outcome in outcomes} == {Disposition.DELIVERED}
    assert [o.sop_instance_uid for o in outcomes] == [f.SOPInstanceUID for f in films]
    assert [r.dataset for r in peer.received] == [encoded(film) for film in films]
    assert {r.transfer_syntax for r in peer.received} == {ExplicitVRLittleEndian}


def test_datasets_go_out_as_they_are():
    film = radiograph(3)
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        [outcome] = send([film], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert outcome.status == 0
    assert peer.received[0].dataset == encoded(film)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless])
def test_a_compressed_file_stays_compressed_where_the_peer_takes_it(tmp_path, syntax):
    path = file_of(tmp_path, compressed(syntax))
    film_class = compressed(syntax).SOPClassUID
    with storage_peer([(film_class, [syntax, *UNCOMPRESSED])]) as peer:
        [outcome] = send([path], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert peer.received[0].transfer_syntax == syntax
    assert path.read_bytes().endswith(peer.received[0].dataset)


@pytest.mark.parametrize("accepted", UNCOMPRESSED)
def test_a_compressed_file_is_decompressed_where_the_peer_takes_nothing_else(tmp_path, accepted):
    film = compressed(JPEGLosslessSV1)
    path = file_of(tmp_path, film)
    before = path.read_bytes()
    with storage_peer([(film.SOPClassUID, [accepted])]) as peer:
        [outcome] = send([path], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    [received] = peer.received
    assert received.transfer_syntax == accepted
    assert received.sop_instance_uid == film.SOPInstanceUID
    assert sample_film(12).astype("<u2").tobytes() in received.dataset
    assert path.read_bytes() == before


def test_a_dataset_is_not_changed_by_being_decompressed_for_a_peer():
    film = compressed(JPEGLosslessSV1)
    pixels = film.PixelData
    with storage_peer([(film.SOPClassUID, UNCOMPRESSED)]) as peer:
        [outcome] = send([film], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert film.PixelData == pixels
    assert film.file_meta.TransferSyntaxUID == JPEGLosslessSV1


def test_a_deflated_file_is_inflated_where_the_peer_does_not_take_it(tmp_path):
    film = radiograph(transfer_syntax=DeflatedExplicitVRLittleEndian)
    with storage_peer([(DX, [ImplicitVRLittleEndian])]) as peer:
        [outcome] = send([file_of(tmp_path, film)], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert film.PixelData in peer.received[0].dataset


def test_a_transfer_syntax_that_cannot_be_converted_is_a_refused_context(tmp_path):
    film = radiograph(transfer_syntax=ExplicitVRBigEndian)
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        [outcome] = send([file_of(tmp_path, film)], remote(peer.port))
    assert outcome.disposition is Disposition.CONTEXT_REFUSED
    assert peer.received == []


def test_a_class_that_the_peer_does_not_take_is_told_apart_and_the_others_go_through():
    capture = radiograph(2, sop_class=SecondaryCaptureImageStorage)
    with storage_peer([(SecondaryCaptureImageStorage, UNCOMPRESSED)]) as peer:
        refused, delivered = send([radiograph(1), capture], remote(peer.port))
    assert refused.disposition is Disposition.CONTEXT_REFUSED
    assert refused.status is None
    assert delivered.disposition is Disposition.DELIVERED


def test_a_peer_that_takes_nothing_at_all_refuses_every_context():
    with storage_peer([(CTImageStorage, UNCOMPRESSED)]) as peer:
        outcomes = send([radiograph(1), radiograph(2)], remote(peer.port))
    assert {o.disposition for o in outcomes} == {Disposition.CONTEXT_REFUSED}


def test_a_file_whose_meta_names_another_instance_goes_out_under_its_own_name(tmp_path):
    film = radiograph(5)
    header = file_header(
        transfer_syntax_uid=ExplicitVRLittleEndian, sop_class_uid=DX, sop_instance_uid="2.25.999"
    )
    path = tmp_path / "export.dcm"
    path.write_bytes(header + encoded(film))
    assert dcmread(path).file_meta.MediaStorageSOPInstanceUID == "2.25.999"
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        [outcome] = send([path], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert peer.received[0].sop_instance_uid == film.SOPInstanceUID == outcome.sop_instance_uid
    assert peer.received[0].dataset == encoded(film)


def test_a_file_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    (tmp_path / "text.dcm").write_text("no DICOM")
    objects = [tmp_path / "missing.dcm", radiograph(1), tmp_path / "text.dcm"]
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        missing, delivered, text = send(objects, remote(peer.port))
    assert missing.disposition is text.disposition is Disposition.REFUSED
    assert "cannot be read" in missing.detail
    assert delivered.disposition is Disposition.DELIVERED


def test_nothing_to_send_opens_no_association():
    assert send([], remote(1)) == []


def test_more_contexts_than_one_association_holds_take_several():
    objects = []
    for number in range(200):
        film = radiograph(number, side=4)
        film.file_meta = FileMetaDataset()
        film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        film.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{number}.77"
        objects.append(film)
    outgoing = [examine(film) for film in objects]
    parts = list(batches(outgoing))
    assert [o for part in parts for o in part] == outgoing
    assert all(len(contexts_for(part)) <= 128 for part in parts)
    contexts = [(film.SOPClassUID, UNCOMPRESSED) for film in objects]
    with storage_peer(contexts) as peer:
        outcomes = send(objects, remote(peer.port))
    assert len(outcomes) == 200
    # pynetdicom knows no service for invented classes, but every context must have been offered.
    assert Disposition.CONTEXT_REFUSED not in {o.disposition for o in outcomes}

import json

import pytest

from dicom_io.delivery_status import Disposition
from dicom_io.dicomweb import DicomWebService
from dicom_io.dicomweb_storage import store
from dicom_io.errors import AssociationFailed
from tests.dicom_io.peers import radiograph
from tests.dicom_io.web_services import Answer, web_server


@pytest.fixture
def film(tmp_path):
    """A stored radiograph: its path and SOP Instance UID."""
    dataset = radiograph()
    path = tmp_path / "film.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path, str(dataset.SOPInstanceUID)


def response(uid: str, *, failed: int | None = None, warning: int | None = None) -> bytes:
    item: dict = {"00081155": {"vr": "UI", "Value": [uid]}}
    if failed is not None:
        item["00081197"] = {"vr": "US", "Value": [failed]}
        return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()


def stored(film, answer: Answer):
    with web_server(lambda _: answer) as server:
        (outcome,) = store([film[0]], DicomWebService(server.url))
    return outcome


def test_a_file_goes_out_byte_for_byte(film):
    with web_server(lambda _: Answer(200, response(film[1]))) as server:
        (outcome,) = store([film[0]], DicomWebService(server.url, authorization="Bearer key"))
    (request,) = server.requests
    assert outcome.disposition is Disposition.DELIVERED
    assert outcome.sop_instance_uid == film[1]
    assert request.path == "/dicom-web/studies"
    assert request.headers["Authorization"] == "Bearer key"
    assert request.headers["Content-Type"].startswith('multipart/related; type="application/dicom"')
    assert request.body.count(film[0].read_bytes()) == 1


@pytest.mark.parametrize(
    ("status", "body", "disposition"),
    [
        (200, {}, Disposition.DELIVERED),
        (202, {"warning": 0xB000}, Disposition.DELIVERED_WITH_WARNING),
        (202, {"failed": 0xA700}, Disposition.RETRY),
        (409, {"failed": 0xA700}, Disposition.RETRY),
        (409, {"failed": 0x0110}, Disposition.RETRY),
        (409, {"failed": 0x0111}, Disposition.DELIVERED_WITH_WARNING),
        (409, {"failed": 0x0122}, Disposition.CONTEXT_REFUSED),
        (409, {"failed": 0xC122}, Disposition.CONTEXT_REFUSED),
        (409, {"failed": 0xA900}, Disposition.REFUSED),
        (409, {"failed": 0xC000}, Disposition.REFUSED),
        (409, {"failed": 0x0000}, Disposition.REFUSED),
        (200, {"failed": 0xC000}, Disposition.REFUSED),
    ],
)
def test_the_service_is_believed_what_it_says_of_an_object(film, status, body, disposition):
    outcome = stored(film, Answer(status, response(film[1], **body)))
    assert outcome.disposition is disposition


@pytest.mark.parametrize(
    ("status", "disposition"),
    [
        (200, Disposition.DELIVERED),
        (202, Disposition.DELIVERED_WITH_WARNING),
        (400, Disposition.REFUSED),
        (409, Disposition.REFUSED),
        (413, Disposition.REFUSED),
        (415, Disposition.CONTEXT_REFUSED),
    ],
)
@pytest.mark.parametrize("body", [b"", b"[" * 10_000, b'{"00081198": 3}', b"<html>", b"[null]"])
def test_an_answer_that_says_nothing_of_the_object_counts_by_its_status(
    film, status, disposition, body
):
    assert stored(film, Answer(status, body)).disposition is disposition


@pytest.mark.parametrize("status", [401, 403, 404, 405, 301, 307])
def test_an_answer_that_waiting_does_not_mend_is_told_apart(film, status):
    with pytest.raises(AssociationFailed) as failure:
        stored(film, Answer(status, headers={"Location": "http://127.0.0.1:1/"}))
    assert not failure.value.transient
    assert str(status) in str(failure.value)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 507])
def test_an_overloaded_service_is_asked_again_later(film, status):
    with pytest.raises(AssociationFailed) as failure:
        stored(film, Answer(status))
    assert failure.value.transient


def test_after_the_service_broke_off_the_rest_waits(film, tmp_path):
    second = tmp_path / "second.dcm"
    second.write_bytes(film[0].read_bytes())
    answers = iter([Answer(200, response(film[1])), Answer(503)])
    with web_server(lambda _: next(answers)) as server:
        outcomes = store([film[0], second, second], DicomWebService(server.url))
    assert [outcome.disposition for outcome in outcomes] == [
        Disposition.DELIVERED,
        Disposition.RETRY,
        Disposition.RETRY,
    ]
    assert len(server.requests) == 2


def test_an_answer_without_end_is_cut_off(film):
    endless = Answer(200, b" " * (1 << 16), endless=True)
    with web_server(lambda _: endless) as server:
        service = DicomWebService(server.url, maximum_answer_bytes=1 << 20)
        with pytest.raises(AssociationFailed, match="without end"):
            store([film[0]], service)


def test_a_service_that_is_not_there_is_asked_again_later(film):
    with pytest.raises(AssociationFailed) as failure:
        store([film[0]], DicomWebService("http://127.0.0.1:9/dicom-web"))
    assert failure.value.transient


def test_a_file_that_cannot_be_read_is_refused_and_the_others_go_on(film, tmp_path):
    with web_server(lambda _: Answer(200, response(film[1]))) as server:
        outcomes = store([tmp_path / "none.dcm", film[0]], DicomWebService(server.url))
    assert [outcome.disposition for outcome in outcomes] == [
        Disposition.REFUSED,
        Disposition.DELIVERED,
    ]

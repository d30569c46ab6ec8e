"""A DICOMweb service (PS3.18), and requests to it that no answer can make grow without bound."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import requests

from dicom_io.errors import AssociationFailed

_CHUNK_BYTES: Final = 1 << 16
_TRANSIENT: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
        HTTPStatus.INSUFFICIENT_STORAGE,
    }
)
# Answers about the service or about us, not about the object that was sent.
_ABOUT_THE_SERVICE: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        HTTPStatus.NOT_IMPLEMENTED,
    }
)


@dataclass(frozen=True)
class DicomWebService:
    """A DICOMweb service that objects are sent to or fetched from.

    Attributes:
        url: its root, e.g. ``https://archive/dicom-web``, without a slash at its end.
        authorization: value of the Authorization header; None sends none.
        trusted: PEM file of authorities; None trusts those of the system.
        certificate: PEM files of our certificate and its key; None sends no certificate.
        connection_timeout_seconds: time for the connection and the TLS handshake.
        response_timeout_seconds: longest silence of the service.
        total_timeout_seconds: time for one whole answer.
        maximum_answer_bytes: longest answer that is read.
    """

    url: str
    authorization: str | None = None
    trusted: Path | None = None
    certificate: tuple[Path, Path] | None = None
    connection_timeout_seconds: float = 10.0
    response_timeout_seconds: float = 60.0
    total_timeout_seconds: float = 300.0
    maximum_answer_bytes: int = 512 << 20

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class WebAnswer:
    """An answer, read whole.

    Attributes:
        status: the HTTP status code.
        content_type: with its parameters.
        body: the bytes.
    """

    status: int
    content_type: str
    body: bytes


@contextmanager
def web_session(service: DicomWebService) -> Iterator[requests.Session]:
    """A session in which connections to the service are used again."""
    with requests.Session() as session:
        # Neither proxies nor credentials of whoever started the process.
        session.trust_env = False
        session.verify = str(service.trusted) if service.trusted is not None else True
        if service.certificate is not None:
            session.cert = (str(service.certificate[0]), str(service.certificate[1]))
        if service.authorization is not None:
            session.headers["Authorization"] = service.authorization
        yield session


def ask(
    session: requests.Session,
    service: DicomWebService,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> WebAnswer:
    """Send one request and read its whole answer.

    Args:
        session: from ``web_session``.
        service: whom to ask.
        method: ``GET`` or ``POST``.
        path: below the service's root, with a leading slash.
        headers: of the request.
        body: of the request.

    Returns:
        An answer about the objects that were asked for or sent: a success, or a refusal of them.

    Raises:
        AssociationFailed: the service cannot be reached, does not know us, is overloaded, or
            answers with something too long; ``transient`` says whether waiting may help.
    """
    try:
        with session.request(
            method,
            service.url + path,
            headers=headers,
            data=body,
            timeout=(service.connection_timeout_seconds, service.response_timeout_seconds),
            # Whoever redirects a POST gets the objects; the settings shall name the right place.
            allow_redirects=False,
            stream=True,
        ) as answer:
            require_service(service, answer.status_code)
            return WebAnswer(
                status=answer.status_code,
                content_type=answer.headers.get("Content-Type", ""),
                body=_read_bounded(answer, service),
            )
    except requests.exceptions.SSLError as cause:
        raise AssociationFailed(f"{service} has no certificate that we trust", False) from cause
    except (requests.RequestException, OSError) as cause:
        raise AssociationFailed(
            f"{service} cannot be reached, or broke off ({type(cause).__name__})"
        ) from cause


def require_reachable(service: DicomWebService) -> None:
    """Ask a service whether it is there, as a C-ECHO asks a remote AE: by a search for one study.

    Raises:
        AssociationFailed: it is not there, refuses us, or does not search.
    """
    with web_session(service) as session:
        headers = {"Accept": "application/dicom+json"}
        answer = ask(session, service, "GET", "/studies?limit=1", headers)
    if answer.status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
        raise AssociationFailed(f"{service} answered HTTP {answer.status} to a search", False)


def require_service(service: DicomWebService, status: int) -> None:
    """Refuse answers that are about the service or about us, not about objects.

    Raises:
        AssociationFailed: it is such an answer.
    """
    if status in _TRANSIENT:
        raise AssociationFailed(f"{service} answered HTTP {status}: not now")
    if status in _ABOUT_THE_SERVICE:
        raise AssociationFailed(
            f"{service} answered HTTP {status}; check its address and our authorization", False
        )
    if 300 <= status < 400:
        raise AssociationFailed(
            f"{service} redirects (HTTP {status}); set the address that it redirects to", False
        )


def first_value(item: Any, tag: str) -> Any:
    """The first value of an element in DICOM JSON (PS3.18 F.2); None where there is none."""
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _read_bounded(answer: requests.Response, service: DicomWebService) -> bytes:
    deadline = time.monotonic() + service.total_timeout_seconds
    body = bytearray()
    for chunk in answer.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > service.maximum_answer_bytes:
            raise AssociationFailed(f"{service} gave an answer without end", transient=False)
        if time.monotonic() > deadline:
            raise AssociationFailed(f"{service} is too slow with its answer")
    return bytes(body)

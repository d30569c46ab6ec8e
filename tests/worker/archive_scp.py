"""An archive over a real socket that is asked for studies (C-FIND, C-GET) and may fail half-way."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from dicom_io.transfer_syntaxes import SINGLE_IMAGE_STORAGE_CLASSES

_OUT_OF_RESOURCES = 0xA702


class ArchiveScp:
    """What it has, how much of it it gives, and how often it was asked for a study."""

    def __init__(self, films: list[Dataset], takes_queries: bool) -> None:
        self.films = films
        self.gives_at_most: int | None = None
        self.studies_asked_for: list[str] = []
        self._entity = AE("ARCHIVE")
        if takes_queries:
            self._entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        self._entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        for storage_class in SINGLE_IMAGE_STORAGE_CLASSES:
            self._entity.add_supported_context(storage_class, scu_role=True, scp_role=True)

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Answer until the end of the block; gives the port."""
        server = self._entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get)],
        )
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()

    def _of_study(self, query: Dataset) -> list[Dataset]:
        return [film for film in self.films if film.StudyInstanceUID == query.StudyInstanceUID]

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for film in self._of_study(event.identifier):
            found = Dataset()
            found.QueryRetrieveLevel = "IMAGE"
            for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"):
                setattr(found, keyword, film[keyword].value)
            yield 0xFF00, found

    def _get(self, event: evt.Event) -> Iterator[int | tuple[int, Dataset | None]]:
        films = self._of_study(event.identifier)
        self.studies_asked_for.append(str(event.identifier.StudyInstanceUID))
        yield len(films)
        for number, film in enumerate(films):
            if number == self.gives_at_most:
                yield _OUT_OF_RESOURCES, Dataset()
                return
            yield 0xFF00, film


@contextmanager
def archive_scp(*films: Dataset, takes_queries: bool = True) -> Iterator[tuple[ArchiveScp, str]]:
    """A running archive on a free port, and how ``fetch --from`` names it."""
    archive = ArchiveScp(list(films), takes_queries)
    with archive.listening() as port:
        yield archive, f"ARCHIVE@127.0.0.1:{port}"

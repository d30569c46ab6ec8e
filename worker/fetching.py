"""Studies fetched from a peer, so that an archive can be worked through in retrospect.

What comes by C-GET or WADO-RS takes the way of an instance that came by C-STORE: checked, fsync'd,
entered, and only then counted as taken. By C-MOVE the peer sends to this node's own listener.
"""

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from sqlalchemy import select

from dicom_io.access_control import AssociationFacts
from dicom_io.dicomweb_retrieval import list_study, retrieve_study
from dicom_io.errors import SettingsError, StorageError
from dicom_io.instance_header import read_identifiers
from dicom_io.retrieval import (
    Retrieval,
    RetrievedObject,
    Take,
    get_study,
    list_instances,
    move_study,
)
from dicom_io.storage import InstanceStore
from dicom_io.storage_service import keep_instance
from dicom_io.transfer_syntaxes import decodable_transfer_syntaxes
from worker.addresses import Target
from worker.clock import utc_now
from worker.connections import remote_of, web_service_at
from worker.database import Database
from worker.intake import DatabaseIntake
from worker.intake_rows import known_instance, study_of_own_result
from worker.settings import Settings
from worker.studies import StudyState
from worker.tables import Study

_HOST_LENGTH = 64
_AE_TITLE_LENGTH = 16


class Way(Enum):
    """How a study is fetched."""

    GET = "get"
    MOVE = "move"
    WADO = "wado"


@dataclass(frozen=True)
class Fetched:
    """What came of fetching one study.

    Attributes:
        study_uid: which.
        taken: radiographs that came, or that the peer says it has sent to our listener.
        failed: radiographs that did not come.
        note: what went wrong, or why nothing was fetched; may be empty.
        complete: whether everything that the peer has of it is here.
    """

    study_uid: str
    taken: int
    failed: int
    note: str
    complete: bool


def source_named(settings: Settings, name: str) -> Target:
    """The peer that a command names: a target of the settings, or an address.

    Raises:
        SettingsError: it is neither.
    """
    for target in settings.targets:
        if target.name == name:
            return target
    try:
        return Target.model_validate(name)
    except ValueError:
        known = ", ".join(target.name for target in settings.targets) or "none"
        raise SettingsError(
            f"{name} is no target of the settings ({known}) and no address such as "
            "PACS@10.0.0.1:104 or https://archive/dicom-web"
        ) from None


def way_to(source: Target, wanted: Way | None) -> Way:
    """How to fetch from a peer.

    Raises:
        SettingsError: the peer cannot be asked that way.
    """
    default = Way.GET if source.url is None else Way.WADO
    way = wanted or default
    if (way is Way.WADO) != (source.url is not None):
        raise SettingsError(f"{source} cannot be asked by {way.value}; leave --by out")
    return way


class Fetcher:
    """Fetches studies from one peer into the node.

    Args:
        settings: of the node.
        database: where it enters what came.
        source: the peer.
        way: how to ask it.
    """

    def __init__(self, settings: Settings, database: Database, source: Target, way: Way) -> None:
        self._settings = settings
        self._database = database
        self._source = source
        self._way = way
        self._store = InstanceStore(
            settings.store_directory, settings.low_water_mark_mib * 1024 * 1024
        )
        self._intake = DatabaseIntake(
            database,
            f"fetch:{socket.gethostname()}:{os.getpid()}",
            settings.quiet,
            settings.longest_wait,
            store=self._store,
        )

    def fetch(self, study_uid: str, *, again: bool = False) -> Fetched:
        """Fetch one study.

        Args:
            study_uid: which.
            again: also if all of it is here, or was deleted here.

        Returns:
            What came; a problem with this study alone is told in it.

        Raises:
            AssociationFailed: the peer cannot be asked at all.
        """
        state = None if again else self._known_state(study_uid)
        if state is StudyState.REMOVED:
            note = "deleted here; use --again to fetch it anew"
            return Fetched(study_uid, 0, 0, note, complete=False)
        listed = self._listed(study_uid)
        if state is not None and listed is not None and not self._missing(listed):
            return Fetched(study_uid, 0, 0, f"known already, {state.value}", complete=True)
        # What came before comes again, and is known by its bytes.
        retrieval = Retrieval(0) if listed == frozenset() else self._retrieve(study_uid)
        if not retrieval.taken and not retrieval.failed and not retrieval.problem:
            return Fetched(study_uid, 0, 0, "the peer has no radiograph of it", complete=False)
        complete = not retrieval.failed and not retrieval.problem
        return Fetched(study_uid, retrieval.taken, retrieval.failed, retrieval.problem, complete)

    def _known_state(self, study_uid: str) -> StudyState | None:
        with self._database.reading() as session:
            return session.scalar(select(Study.state).where(Study.study_uid == study_uid))

    def _listed(self, study_uid: str) -> frozenset[str] | None:
        """SOP Instance UIDs that the peer has of a study; None where it does not tell."""
        if self._source.url is not None:
            return list_study(web_service_at(self._settings, self._source.url), study_uid)
        return list_instances(remote_of(self._settings, self._source), study_uid)

    def _missing(self, listed: frozenset[str]) -> bool:
        """Whether any of these instances is not here; results of ours need not come."""
        with self._database.reading() as session:
            return any(
                known_instance(session, uid) is None and study_of_own_result(session, uid) is None
                for uid in listed
            )

    def _retrieve(self, study_uid: str) -> Retrieval:
        if self._source.url is not None:
            service = web_service_at(self._settings, self._source.url)
            return self._taking(lambda take: retrieve_study(service, study_uid, take))
        remote = remote_of(self._settings, self._source)
        if self._way is Way.MOVE:
            return move_study(remote, study_uid, self._settings.ae_title)
        return self._taking(lambda take: get_study(remote, study_uid, take))

    def _taking(self, retrieve: Callable[[Take], Retrieval]) -> Retrieval:
        with self._association() as take:
            return retrieve(take)

    @contextmanager
    def _association(self) -> Iterator[Take]:
        """What comes in one go counts as an association, so that its study becomes quiet after."""
        facts = AssociationFacts(
            association_uid=str(uuid.uuid4()),
            calling_ae_title=(self._source.ae_title or self._source.name)[:_AE_TITLE_LENGTH],
            called_ae_title=self._settings.ae_title,
            peer_address=(self._source.host or self._source.name)[:_HOST_LENGTH],
            started=utc_now(),
        )
        self._intake.association_accepted(facts)
        complete = False
        try:
            yield lambda retrieved: self._take(retrieved, facts)
            complete = True
        finally:
            self._intake.association_ended(facts, released=complete)

    def _take(self, retrieved: RetrievedObject, facts: AssociationFacts) -> None:
        """Make one object durable and enter it.

        Raises:
            StorageError: it is not what it says it is, cannot be decoded here, or the disk is full.
        """
        if retrieved.transfer_syntax_uid not in decodable_transfer_syntaxes():
            raise StorageError("an object is in a transfer syntax that cannot be decoded here")
        identifiers = read_identifiers(retrieved.encoded_dataset, retrieved.transfer_syntax_uid)
        if identifiers.sop_instance_uid not in (None, retrieved.sop_instance_uid):
            raise StorageError("an object is another one than its peer says")
        instance = keep_instance(
            self._store,
            retrieved.encoded_dataset,
            identifiers,
            transfer_syntax_uid=retrieved.transfer_syntax_uid,
            sop_class_uid=retrieved.sop_class_uid,
            sop_instance_uid=retrieved.sop_instance_uid,
        )
        self._intake.instance_stored(facts, instance)


def studies_of_list(text: str) -> list[str]:
    """Study Instance UIDs of a list, one a line; empty lines and ``#`` comments are left out."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))

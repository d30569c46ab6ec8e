"""Associations and instances as a listener reports them, for tests of what follows."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dicom_io.access_control import AssociationFacts
from dicom_io.intake import ReceivedInstance
from dicom_io.storage import StoredInstance

DX_IMAGE = "1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: datetime = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


def association(calling: str = "CT1", host: str = "127.0.0.1") -> AssociationFacts:
    return AssociationFacts(
        association_uid=str(uuid.uuid4()),
        calling_ae_title=calling,
        called_ae_title="MULTIMIX",
        peer_address=host,
        started=datetime(2026, 11, 23, 8, 0, tzinfo=UTC),
    )


def received(
    sop_instance_uid: str,
    study_uid: str | None = "1.2.3",
    content: str = "pixels",
    series_uid: str | None = "1.2.3.1",
    problem: str | None = None,
) -> ReceivedInstance:
    sha256 = hashlib.sha256(f"{sop_instance_uid} {content}".encode()).hexdigest()
    stored = StoredInstance(
        relative_path=f"instances/{sha256[:2]}/{sha256[2:4]}/{sha256}.dcm",
        sha256=sha256,
        size=len(content),
        transfer_syntax_uid=EXPLICIT_LITTLE,
        sop_class_uid=DX_IMAGE,
        sop_instance_uid=sop_instance_uid,
    )
    return ReceivedInstance(
        stored=stored,
        sop_class_uid=DX_IMAGE,
        sop_instance_uid=sop_instance_uid,
        study_uid=study_uid,
        series_uid=series_uid,
        problem=problem,
    )

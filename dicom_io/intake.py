"""What the listener tells the rest of the node, without knowing who that is."""

from dataclasses import dataclass
from typing import Protocol

from dicom_io.access_control import AssociationFacts, Refusal
from dicom_io.storage import StoredInstance


@dataclass(frozen=True)
class ReceivedInstance:
    """An instance that came and is durable.

    Attributes:
        stored: the file.
        sop_class_uid: Affected SOP Class UID.
        sop_instance_uid: Affected SOP Instance UID.
        study_uid: Study Instance UID; None if it is missing, malformed or cannot be parsed.
        series_uid: Series Instance UID; None likewise.
        problem: what is wrong with the header, in words a technician understands, or None.
    """

    stored: StoredInstance
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str | None
    series_uid: str | None
    problem: str | None


class Intake(Protocol):
    """Who is told what came. Called from many threads; each association's calls come in order."""

    def association_accepted(self, association: AssociationFacts) -> None:
        """An association is about to be accepted; an exception refuses it for the time being."""

    def instance_stored(self, association: AssociationFacts, instance: ReceivedInstance) -> None:
        """An instance is durable; success is answered when this returns.

        Any exception answers 0xA700 (out of resources), so that the sender tries again.
        """

    def association_ended(self, association: AssociationFacts, released: bool) -> None:
        """An accepted association is over, after its last instance; called once for each."""

    def association_refused(self, association: AssociationFacts, reason: Refusal) -> None:
        """An association was refused; where TLS failed, nobody has said a name yet."""

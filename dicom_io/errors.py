"""Every error that this project raises on purpose, in one tree.

::

    MultiMixError
    ├── SettingsError            a setting is missing or wrong; raised at start, names the setting
    ├── ImageRejected            the object is not a readable frontal chest radiograph; final
    ├── DecodingError            the decoding process gave no answer; another attempt may get one
    │   ├── DecoderCrashed       it ended, as it does when a codec reads where it must not
    │   └── DecodingTimedOut     it took longer than is allowed, and was ended
    ├── StorageError             an instance could not be made durable
    │   ├── OutOfSpace           the disk is full or below its low-water mark; the sender may retry
    │   └── InstanceConflict     a SOP Instance UID came again with other bytes
    ├── AssociationFailed        a remote AE could not be reached, or refused us
    ├── ArchiveError             an archive export or its manifest cannot be used
    │   └── MaskMismatch         a SEG does not fit the image it is offered for
    ├── CheckpointError          a model directory is damaged, incomplete or of another version
    ├── TrainingError            a training run cannot start or go on
    ├── IllegalTransition        a study was asked to take a step its state machine does not draw
    └── LeaseLost                another worker took the study over; our work on it is void

A message says what happened, to which object, and what to do. It never holds patient data: UIDs
and paths are allowed, names, birth dates and accession numbers are not.
"""

from enum import Enum


class RejectionReason(Enum):
    """Why an object gets no result; the value is the sentence that a technician reads."""

    UNREADABLE = "not a readable DICOM object"
    NO_UID = "Study, Series or SOP Instance UID is missing"
    NOT_AN_IMAGE = "the object has no pixel data"
    UNSUPPORTED_CLASS = "the storage class is not one of CR, DX or Secondary Capture"
    MULTI_FRAME = "multi-frame image: only single radiographs are read"
    COLOUR = "colour image: only grey-scale radiographs are read"
    TOO_LARGE = "more than 100 megapixels"
    TOO_SMALL = "fewer than 64 pixels in a row or column"
    UNDECODABLE = "the pixel data cannot be decoded"
    TOO_MUCH_MEMORY = "decoding it takes more memory than is allowed"
    NOT_CHEST = "not a chest radiograph"
    NOT_FRONTAL = "not a frontal view"
    UNLIKE_TRAINING = "the image is unlike the films that the model learnt from"
    NO_LUNGS = "no pair of lungs was found in the image"
    OWN_RESULT = "the object is a result of this node"


class MultiMixError(Exception):
    """Root of the tree: everything that this project raises on purpose."""


class SettingsError(MultiMixError):
    """A setting is missing or wrong; the message names it."""


class ImageRejected(MultiMixError):
    """The object will never get a result, and this is why.

    Attributes:
        reason: the kind of refusal.
        detail: what was seen, free of patient data; may be empty.
    """

    def __init__(self, reason: RejectionReason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"rejected: {reason.value}" + (f" ({detail})" if detail else ""))

    def __reduce__(self) -> tuple[type["ImageRejected"], tuple[RejectionReason, str]]:
        """Let the exception cross a process boundary with both of its parts."""
        return (ImageRejected, (self.reason, self.detail))


class DecodingError(MultiMixError):
    """The decoding process gave no answer; another attempt may get one."""


class DecoderCrashed(DecodingError):
    """The decoding process ended while it had a film in hand."""


class DecodingTimedOut(DecodingError):
    """The decoding process took longer over one step than is allowed, and was ended."""


class StorageError(MultiMixError):
    """An instance could not be made durable; success must not be answered."""


class OutOfSpace(StorageError):
    """The disk is full or below its low-water mark; the sender may try again later."""


class InstanceConflict(StorageError):
    """A SOP Instance UID came again with other bytes; both copies are kept."""


class AssociationFailed(MultiMixError):
    """A remote AE could not be reached, or refused the association.

    Attributes:
        transient: whether trying again later may help without anyone's intervention.
    """

    def __init__(self, message: str, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class ArchiveError(MultiMixError):
    """An archive export or its manifest cannot be used as it is."""


class MaskMismatch(ArchiveError):
    """A SEG does not fit the image it is offered for."""


class CheckpointError(MultiMixError):
    """A model directory is damaged, incomplete or written by another version."""


class TrainingError(MultiMixError):
    """A training run cannot start or go on."""


class IllegalTransition(MultiMixError):
    """A study was asked to take a step that its state machine does not draw."""


class LeaseLost(MultiMixError):
    """Another worker holds the study now; the work done under the old lease is void."""

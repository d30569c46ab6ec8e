"""Hostile films are read in a process that may die: one child, kept as long as it behaves.

Codecs are C code; a film made for it can crash them, hang them or let them take all memory. Here
that costs a child process and one attempt, never the worker.
"""

import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_io.decoding_messages import receive_content, receive_into
from dicom_io.decoding_source import LARGEST_ATTRIBUTES_BYTES, source_without_pixels
from dicom_io.decoding_spawn import Fields, Receive, Received, SpawnedChild
from dicom_io.errors import (
    ArchiveError,
    DecodingError,
    ImageRejected,
    RejectionReason,
    StorageError,
)
from dicom_io.pixels import LARGEST_IMAGE_PIXELS, Radiograph

CHILD_MODULE: Final = "dicom_io.decoding_child"


@dataclass(frozen=True)
class DecodingLimits:
    """What reading one file may take.

    Attributes:
        seconds: wall-clock time of each step.
        memory_bytes: address space of the decoding process. A film of 100 megapixels, the largest
            that is read, takes 3.5 GiB; one of 9 megapixels takes 0.8 GiB.
    """

    seconds: float = 60.0
    memory_bytes: int = 4 << 30


class DecodingProcess:
    """A child process that opens and decodes films, started when it is first needed.

    After a crash, a time-out or a want of memory the next step starts a new one. Threads take
    turns.

    Args:
        limits: of each step.
        child_module: its program, which serves the steps of ``dicom_io.decoding_child``.
    """

    def __init__(
        self, limits: DecodingLimits | None = None, child_module: str = CHILD_MODULE
    ) -> None:
        self._limits = limits or DecodingLimits()
        self._child_module = child_module
        self._child: SpawnedChild | None = None
        self._turn = threading.Lock()

    def __enter__(self) -> "DecodingProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child; a later step starts a new one."""
        with self._turn:
            self._end_child()

    @property
    def process_number(self) -> int | None:
        """The child's process number; None while there is no child."""
        return None if self._child is None else self._child.process.pid

    def open(self, path: Path) -> Dataset:
        """Read a DICOM file of whatever origin, but for its pixels.

        Args:
            path: of the file.

        Returns:
            The object without elements above 1 MiB, and with an empty Pixel Data element if it has
            pixels; ``filename`` is the path, by which ``decode`` finds them.

        Raises:
            ImageRejected: it is no readable DICOM object, or takes too much memory.
            StorageError: the file cannot be read.
            DecodingError: the decoding process crashed, took too long or does not start.
        """

        def receive(
            fields: Fields, length: int, connection: socket.socket, deadline: float
        ) -> tuple[Fields, bytes]:
            if length > 2 * LARGEST_ATTRIBUTES_BYTES:
                raise ValueError("the attributes are too long")
            return fields, bytes(receive_content(connection, length, deadline))

        fields, content = self._ask("open", path, receive)
        return source_without_pixels(
            content, path, str(fields["transfer_syntax_uid"]), has_pixels=bool(fields["has_pixels"])
        )

    def decode(self, source: Dataset) -> Radiograph:
        """Decode the film in an object's file as ``dicom_io.pixels.decode`` does.

        Args:
            source: what ``open`` gave for the file.

        Raises:
            ImageRejected: the object is no single grey image, too large, or cannot be decoded
                within the memory that is allowed.
            StorageError: the file cannot be read.
            DecodingError: the decoding process crashed, took too long or does not start.
        """
        return self._ask("decode", Path(source.filename), _receive_radiograph)

    def network_image(self, path: Path, side: int) -> NDArray[np.uint8]:
        """The network's input from a file of an archive export.

        Args:
            path: of the file.
            side: rows and columns of the result, in pixels.

        Returns:
            uint8, (side, side), as ``dicom_io.pixels.network_image`` makes it.

        Raises:
            ArchiveError: the file is damaged.
            ImageRejected, StorageError, DecodingError: as for ``decode``.
        """

        def receive(
            fields: Fields, length: int, connection: socket.socket, deadline: float
        ) -> NDArray[np.uint8]:
            image_hw = np.empty((side, side), np.uint8)
            if length != image_hw.nbytes:
                raise ValueError("the image has another size than was asked for")
            receive_into(connection, image_hw.data, deadline)
            return image_hw

        return self._ask("network image", path, receive, side=side)

    def _ask(
        self, step: str, path: Path, receive: Receive[Received], **parameters: object
    ) -> Received:
        request = {"step": step, "path": str(path), **parameters}
        with self._turn:
            is_new = self._child is None
            try:
                return self._ask_child(request, receive)
            except ImageRejected as refusal:
                # What earlier films left behind in the child may be the reason; a new one decides.
                if is_new or refusal.reason is not RejectionReason.TOO_MUCH_MEMORY:
                    raise
                return self._ask_child(request, receive)

    def _ask_child(self, request: Fields, receive: Receive[Received]) -> Received:
        """Ask the child, a new one where there is none; end it unless it gave a whole answer."""

        def receive_if_done(
            fields: Fields, length: int, connection: socket.socket, deadline: float
        ) -> Received:
            self._require_done(fields, str(request["path"]))
            return receive(fields, length, connection, deadline)

        try:
            if self._child is None:
                self._child = SpawnedChild(self._child_module, self._limits.memory_bytes)
            return self._child.ask(request, self._limits.seconds, receive_if_done)
        except (ArchiveError, StorageError):
            raise
        except ImageRejected as refusal:
            if refusal.reason is RejectionReason.TOO_MUCH_MEMORY:
                self._end_child()
            raise
        except BaseException:
            # Also where a signal broke in: an answer that is still to come is to no later question.
            self._end_child()
            raise

    def _require_done(self, fields: Fields, path: str) -> None:
        """Raise what the child's answer says, unless it did what it was asked."""
        match fields["outcome"]:
            case "done":
                return
            case "rejected":
                raise ImageRejected(RejectionReason[fields["reason"]], str(fields["detail"]))
            case "unusable":
                raise ArchiveError(str(fields["message"]))
            case "short of memory":
                most = f"more than {self._limits.memory_bytes >> 20} MiB"
                raise ImageRejected(RejectionReason.TOO_MUCH_MEMORY, most)
            case "no file":
                raise StorageError(f"{path} cannot be read: {fields['message']}")
            case _:
                raise DecodingError(f"{path} cannot be decoded: {fields['kind']}")

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


def _receive_radiograph(
    fields: Fields, length: int, connection: socket.socket, deadline: float
) -> Radiograph:
    rows, columns = int(fields["rows"]), int(fields["columns"])
    if rows < 1 or columns < 1 or rows * columns > LARGEST_IMAGE_PIXELS:
        raise ValueError("the film has an absurd size")
    grey_hw = np.empty((rows, columns), np.float32)
    valid_hw = np.ones((rows, columns), np.bool_)
    parts = (grey_hw, valid_hw) if fields["is_padded"] else (grey_hw,)
    if length != sum(part.nbytes for part in parts):
        raise ValueError("the film has another size than it says")
    for part in parts:
        receive_into(connection, part.data, deadline)
    return Radiograph(grey_hw=grey_hw, valid_hw=valid_hw)

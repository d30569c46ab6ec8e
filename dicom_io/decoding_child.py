"""The decoding process: reads hostile files under limits, and is expendable.

    python -m dicom_io.decoding_child SOCKET MEMORY_BYTES

Started by ``decoding.DecodingProcess``, never by hand. It serves one step after another until the
socket closes. It holds no secret, may write no file, and leaves no core dump.
"""

import resource
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dicom_io.archive_file import read_dataset
from dicom_io.decoding_messages import Octets, receive_fields, send_message
from dicom_io.decoding_source import attributes_of, read_source
from dicom_io.errors import ArchiveError, ImageRejected
from dicom_io.pixels import decode, network_image
from dicom_io.transfer_syntaxes import decodable_transfer_syntaxes

_MOST_OPEN_FILES: Final = 64


@dataclass(frozen=True)
class Answer:
    """What a step found: what JSON can say, and raw bytes."""

    fields: Mapping[str, Any]
    contents: tuple[Octets, ...] = ()


Step = Callable[[Mapping[str, Any]], Answer]


def open_source(request: Mapping[str, Any]) -> Answer:
    """The attributes of the object in the file ``path``."""
    source = read_source(Path(request["path"]))
    facts = {
        "has_pixels": "PixelData" in source,
        "transfer_syntax_uid": str(source.file_meta.get("TransferSyntaxUID", "")),
    }
    return Answer(facts, (attributes_of(source),))


def decode_film(request: Mapping[str, Any]) -> Answer:
    """Grey values of the film in the file ``path``, then which of them are no padding."""
    radiograph = decode(read_source(Path(request["path"])))
    facts = {
        "rows": radiograph.rows,
        "columns": radiograph.columns,
        "is_padded": not radiograph.valid_hw.all(),
    }
    grey = radiograph.grey_hw.data
    return Answer(facts, (grey, radiograph.valid_hw.data) if facts["is_padded"] else (grey,))


def make_network_image(request: Mapping[str, Any]) -> Answer:
    """The network's input of ``side`` pixels from the archive's file ``path``."""
    image_hw = network_image(decode(read_dataset(Path(request["path"]))), int(request["side"]))
    return Answer({}, (image_hw.data,))


STEPS: Final[Mapping[str, Step]] = {
    "open": open_source,
    "decode": decode_film,
    "network image": make_network_image,
}


def serve(connection: socket.socket, steps: Mapping[str, Step] = STEPS) -> None:
    """Do what is asked until the other side is gone."""
    send_message(connection, {"outcome": "ready"})
    while True:
        try:
            request, _ = receive_fields(connection)
        except EOFError:
            return
        _limit_processor_time(float(request["seconds"]))
        answer = _answer_to(request, steps)
        try:
            send_message(connection, answer.fields, *answer.contents)
        except OSError:
            return  # whoever asked is gone


def restrict(memory_bytes: int) -> None:
    """Take from this process what decoding does not need.

    Args:
        memory_bytes: the most address space that it may have.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_OPEN_FILES, _MOST_OPEN_FILES))
    # Ctrl-C reaches the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(steps: Mapping[str, Step] = STEPS) -> None:
    """Restrict this process, load the decoders, and serve."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    _be_the_first_to_go()
    restrict(int(sys.argv[2]))
    warnings.simplefilter("ignore")  # their texts may quote the object
    decodable_transfer_syntaxes()
    serve(connection, steps)


def _answer_to(request: Mapping[str, Any], steps: Mapping[str, Step]) -> Answer:
    """Do one step; whatever it raises becomes an answer without a word of the object's content."""
    try:
        answer = steps[request["step"]](request)
    except ImageRejected as refusal:
        reason = {"reason": refusal.reason.name, "detail": refusal.detail}
        return Answer({"outcome": "rejected", **reason})
    except ArchiveError as problem:
        return Answer({"outcome": "unusable", "message": str(problem)})
    except MemoryError:
        return Answer({"outcome": "short of memory"})
    except OSError as cause:
        return Answer({"outcome": "no file", "message": cause.strerror or type(cause).__name__})
    except Exception as cause:  # noqa: BLE001 - the next film shall find this process alive
        return Answer({"outcome": "failed", "kind": type(cause).__name__})
    return Answer({"outcome": "done", **answer.fields}, answer.contents)


def _limit_processor_time(seconds: float) -> None:
    """End this process if a step takes too long and nobody is left who watches the clock."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def _be_the_first_to_go() -> None:
    """Where the machine runs out of memory, the kernel shall end this process and no other."""
    Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()

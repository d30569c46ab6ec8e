"""A small receiving PACS for the demonstration: Orthanc where it is installed, else a storage SCP.

Both answer the same two questions: which objects are here, and since when.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import requests
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE

from dicom_io.errors import MultiMixError

AE_TITLE = "DEMOPACS"
VERIFICATION = "1.2.840.10008.1.1"
START_SECONDS = 30


@dataclass(frozen=True)
class Arrival:
    """One object that the PACS holds.

    Attributes:
        sop_instance_uid: of the object.
        at: ``time.time()`` of its arrival (Orthanc: when it was first seen there).
        times: how often it came (Orthanc: not counted).
        unchanged: whether it was the same, byte for byte, each time (Orthanc: not looked at).
    """

    sop_instance_uid: str
    at: float
    times: int = 1
    unchanged: bool = True


class ReceivingPacs(Protocol):
    """What the demonstration asks of its PACS."""

    name: str
    port: int

    def arrivals(self) -> dict[str, Arrival]:
        """What has arrived so far, by SOP Instance UID."""

    def fetch(self, sop_instance_uid: str, path: Path) -> None:
        """Write one received object to a file."""

    def stop(self) -> None:
        """Stop receiving."""


def start_pacs(folder: Path) -> ReceivingPacs:
    """Start Orthanc if it is on the PATH, else a storage SCP; on 127.0.0.1, any free port."""
    folder.mkdir(parents=True, exist_ok=True)
    program = shutil.which("Orthanc")
    return OrthancPacs(program, folder) if program else StorageScpPacs(folder)


class StorageScpPacs:
    """A storage SCP that writes every object it receives into a folder."""

    name = "pynetdicom storage SCP"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._arrivals: dict[str, Arrival] = {}
        entity = AE(ae_title=AE_TITLE)
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context(VERIFICATION)
        self.port = free_port()
        entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)]
        )
        self._entity = entity

    def _keep(self, event: evt.Event) -> int:
        request = event.request
        if not isinstance(request, C_STORE):
            return 0x0211  # unrecognised operation
        sop_instance_uid = str(request.AffectedSOPInstanceUID)
        path, content = self._path(sop_instance_uid), event.encoded_dataset()
        with self._lock:
            known = self._arrivals.get(sop_instance_uid)
            if known is None:
                arrival = Arrival(sop_instance_uid, time.time())
            else:
                same = known.unchanged and path.read_bytes() == content
                arrival = replace(known, times=known.times + 1, unchanged=same)
            path.write_bytes(content)
            self._arrivals[sop_instance_uid] = arrival
        return 0x0000

    def _path(self, sop_instance_uid: str) -> Path:
        return self._folder / f"{sop_instance_uid}.dcm"

    def arrivals(self) -> dict[str, Arrival]:
        """What has arrived so far, by SOP Instance UID."""
        with self._lock:
            return dict(self._arrivals)

    def fetch(self, sop_instance_uid: str, path: Path) -> None:
        """Copy one received object to a file."""
        shutil.copyfile(self._path(sop_instance_uid), path)

    def stop(self) -> None:
        """Stop receiving."""
        self._entity.shutdown()


class OrthancPacs:
    """Orthanc, with its storage in a folder of the demonstration."""

    name = "Orthanc"

    def __init__(self, program: str, folder: Path) -> None:
        self.port, http_port = free_port(), free_port()
        self._url = f"http://127.0.0.1:{http_port}"
        self._arrivals: dict[str, Arrival] = {}
        self._orthanc_ids: dict[str, str] = {}
        self._next_change = 0
        settings = {
            "Name": "MultiMix demonstration",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": AE_TITLE,
            "DicomPort": self.port,
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "SaveJobs": False,
            "Plugins": [],
        }
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(settings))
        with (folder / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, str(configuration)], stdout=log, stderr=log, cwd=folder
            )
        wait_until(self._answers, START_SECONDS, "Orthanc did not start; see orthanc.log")

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise MultiMixError("Orthanc ended at its start; see orthanc.log")
        try:
            return requests.get(f"{self._url}/system", timeout=1).ok
        except requests.RequestException:
            return False

    def arrivals(self) -> dict[str, Arrival]:
        """What has arrived so far, by SOP Instance UID."""
        done = False
        while not done:
            page = self._json(f"/changes?since={self._next_change}&limit=100")
            for change in page["Changes"]:
                if change["ChangeType"] == "NewInstance":
                    self._remember(change["ID"])
            self._next_change, done = page["Last"], page["Done"]
        return dict(self._arrivals)

    def _remember(self, orthanc_id: str) -> None:
        sop_instance_uid = self._json(f"/instances/{orthanc_id}")["MainDicomTags"]["SOPInstanceUID"]
        self._orthanc_ids[sop_instance_uid] = orthanc_id
        self._arrivals[sop_instance_uid] = Arrival(sop_instance_uid, time.time())

    def fetch(self, sop_instance_uid: str, path: Path) -> None:
        """Download one received object to a file."""
        url = f"{self._url}/instances/{self._orthanc_ids[sop_instance_uid]}/file"
        answer = requests.get(url, timeout=30)
        answer.raise_for_status()
        path.write_bytes(answer.content)

    def _json(self, path: str) -> Any:
        answer = requests.get(self._url + path, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def stop(self) -> None:
        """Stop Orthanc, firmly if it does not listen."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(answered: Callable[[], bool], seconds: float, failure: str) -> None:
    """Ask again and again until the answer is yes.

    Raises:
        MultiMixError: with ``failure``, when the time is over.
    """
    end = time.monotonic() + seconds
    while not answered():
        if time.monotonic() > end:
            raise MultiMixError(failure)
        time.sleep(0.1)

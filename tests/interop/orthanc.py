"""Orthanc with its DICOMweb plugin as the PACS of a test."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.programs import require_program
from worker.demo_pacs import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc.

    Attributes:
        ae_title: of its storage SCP.
        port: of its storage SCP.
        dicom_web: URL of its DICOMweb service.
    """

    ae_title: str
    port: int
    dicom_web: str

    def studies(self, **query: str) -> list[dict[str, Any]]:
        """QIDO-RS for studies."""
        return self._json("/studies", query)

    def instances(self, study_uid: str) -> list[dict[str, Any]]:
        """QIDO-RS for the instances of a study."""
        return self._json(f"/studies/{study_uid}/instances", {})

    def metadata(self, study_uid: str) -> list[dict[str, Any]]:
        """WADO-RS metadata of all instances of a study."""
        return self._json(f"/studies/{study_uid}/metadata", {})

    def _json(self, path: str, query: dict[str, str]) -> list[dict[str, Any]]:
        answer = requests.get(
            self.dicom_web + path,
            params=query,
            headers={"Accept": "application/dicom+json"},
            timeout=30,
        )
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Start Orthanc on free ports of 127.0.0.1, in a folder of the test."""
    program = require_program("Orthanc")
    if not PLUGIN.exists():
        require_program("libOrthancDicomWeb.so")
    folder.mkdir(parents=True)
    port, http_port = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    log_path = folder / "orthanc.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [program, str(configuration)], stdout=log, stderr=log, cwd=folder
        )
    url = f"http://127.0.0.1:{http_port}"
    try:
        _wait_until_it_answers(process, url, log_path)
        yield Orthanc("ORTHANC", port, f"{url}/dicom-web")
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(f"{url}/system", timeout=1).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    pytest.fail(f"Orthanc did not start:\n{log_path.read_text()[-2000:]}")

"""A node that speaks TLS with everyone: modality, PACS and broker; certificates are renewed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_io.access_control import Refusal
from dicom_io.errors import AssociationFailed
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.sender import echo, send
from dicom_io.tls import TlsFiles
from tests.dicom_io.certificates import Authority, create_authority
from tests.interop.dcmtk import storescp, wait_until_listening
from tests.programs import output_of, require_program
from tests.worker.node_processes import processes_of
from tests.worker.nodes import ROOT, running_node
from worker.demo_pacs import free_port

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def redis_port(tmp_path: Path, hospital: Authority) -> Iterator[int]:
    """A Redis server that speaks TLS only, and asks for a password."""
    port, files = free_port(), hospital.issue("redis")
    process = subprocess.Popen(
        [
            require_program("redis-server"),
            *("--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1"),
            *("--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.private_key)),
            *("--tls-ca-cert-file", str(files.trusted), "--tls-auth-clients", "no"),
            *("--dir", str(tmp_path), "--appendonly", "yes", "--requirepass", "geheim"),
        ],
        stdout=subprocess.DEVNULL,
    )
    wait_until_listening(port, process)
    yield port
    process.terminate()
    process.wait(timeout=20)


def install(files: TlsFiles, folder: Path) -> dict[str, str]:
    """Put a certificate and its key where the node looks for them; the settings that name them."""
    named = {}
    for setting, source in (
        ("tls_certificate", files.certificate),
        ("tls_private_key", files.private_key),
        ("tls_trusted", files.trusted),
    ):
        target = folder / f"{setting}.pem"
        fresh = target.with_suffix(".new")
        shutil.copyfile(source, fresh)
        fresh.rename(target)
        named[setting] = str(target)
    return named


def test_the_whole_path_over_tls_with_a_certificate_renewed_on_the_way(
    tmp_path: Path, hospital: Authority, stranger: Authority, redis_port: int
) -> None:
    files = install(hospital.issue("node"), tmp_path)
    modality = hospital.issue("modality")
    secret = tmp_path / "broker_url"
    secret.write_text(
        f"rediss://:geheim@127.0.0.1:{redis_port}/0?ssl_ca_certs={hospital.certificate}\n"
    )
    pacs_files = hospital.issue("pacs")
    identity = ["+tls", pacs_files.private_key, pacs_files.certificate, "+cf", pacs_files.trusted]
    with (
        storescp(tmp_path / "pacs", *map(str, identity)) as pacs,
        running_node(
            tmp_path / "node",
            None,
            **files,
            broker_url_file=str(secret),
            targets=f"PACS@127.0.0.1:{pacs.port} seg+sc tls",
            allowed_peers="MODALITY@127.0.0.1",
        ) as node,
    ):
        with pytest.raises(AssociationFailed):
            echo(replace(node.address, association_timeout_seconds=2))
        foreign = replace(stranger.issue("foreign"), trusted=hospital.certificate)
        with pytest.raises(AssociationFailed):
            echo(replace(node.address, tls=foreign, association_timeout_seconds=2))
        known = replace(node.address, tls=modality)
        chest = phantom_dataset(draw_phantom(31, 256, 256))
        assert [outcome.status for outcome in send([chest], known)] == [0x0000]
        study = node.wait_for(chest.StudyInstanceUID, "done", "failed")
        assert study["state"] == "done", study
        received = [dcmread(path, force=True) for path in (tmp_path / "pacs").iterdir()]
        assert {dataset.StudyInstanceUID for dataset in received} == {chest.StudyInstanceUID}
        assert len(received) == 2

        assert "Received Echo Response (Success)" in echo_by_dcmtk(modality, node.address.port)

        install(stranger.issue("node"), tmp_path)
        assert "Received Echo Response" not in echo_by_dcmtk(modality, node.address.port)
        with pytest.raises(AssociationFailed):
            echo(known)
        echo(replace(node.address, tls=stranger.issue("modality")))

        refused = [
            (entry["detail"]["reason"], entry["detail"]["host"])
            for entry in json.loads(node.command("audit", "--json", "--limit", "1000"))
            if entry["kind"] == "association refused"
        ]
        expected = (Refusal.NO_TLS, Refusal.NO_TRUSTED_CERTIFICATE)
        assert {(refusal.value, "127.0.0.1") for refusal in expected} <= set(refused), refused

        assert "geheim" not in node.command("settings")
        assert "geheim" not in (node.folder / "node.log").read_text()
        processes = processes_of(node.folder / "home")
        assert len(processes) > 4
        for process in processes:
            assert b"geheim" not in Path(f"/proc/{process}/cmdline").read_bytes()


def echo_by_dcmtk(files: TlsFiles, port: int) -> str:
    identity = ["+tls", files.private_key, files.certificate, "+cf", files.trusted]
    titles = ["-aet", "MODALITY", "-aec", "MULTIMIX"]
    return output_of("echoscu", "-v", *titles, *identity, "127.0.0.1", str(port))


def run_python(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the node, or a program of the test, with a home folder in ``folder``."""
    environment = os.environ | {f"MULTIMIX_{name.upper()}": text for name, text in settings.items()}
    environment |= {"MULTIMIX_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_broker_of_an_unknown_authority_is_not_spoken_to(
    tmp_path: Path, hospital: Authority, stranger: Authority, redis_port: int
) -> None:
    program = "from worker.celery import waker; print(waker.waiting('reading') is not None)"
    for authority, answer in ((stranger, "False"), (hospital, "True")):
        url = f"rediss://:geheim@127.0.0.1:{redis_port}/0?ssl_ca_certs={authority.certificate}"
        done = run_python(tmp_path, "-c", program, broker_url=url)
        assert done.stdout.strip() == answer, done.stderr[-2000:]


def test_a_key_that_does_not_fit_keeps_the_listener_from_starting_and_is_named(
    tmp_path: Path, hospital: Authority
) -> None:
    files = install(hospital.issue("node"), tmp_path)
    shutil.copyfile(hospital.issue("other").private_key, files["tls_private_key"])
    files["listener_port"] = str(free_port())
    assert run_python(tmp_path, "-m", "worker", "migrate", **files).returncode == 0
    done = run_python(tmp_path, "-m", "worker", "listen", **files)
    assert done.returncode == 2
    assert "tls_private_key.pem" in done.stderr

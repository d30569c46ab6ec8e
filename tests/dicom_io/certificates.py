"""A certificate authority for tests: its certificates are good, expired, or of a stranger."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from dicom_io.tls import TlsFiles
from tests.programs import require_program

_NEW_KEY = {
    "ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("-newkey", "rsa:2048"),
}


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder of its own."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "authority.pem"

    def issue(
        self, name: str, *, days: int = 2, host: str = "127.0.0.1", key: str = "ec"
    ) -> TlsFiles:
        """Certificate and key (``ec`` or ``rsa``) for a peer; negative days: it has expired."""
        private_key, request, certificate = (
            self.folder / f"{name}.{end}" for end in ("key", "csr", "pem")
        )
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=IP:{host}\n")
        _openssl(
            *("req", "-new", *_NEW_KEY[key], "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", private_key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-days", str(days)),
            *("-CAkey", self.folder / "authority.key", "-CAcreateserial", "-extfile", extensions),
            *("-out", certificate),
        )
        return TlsFiles(certificate=certificate, private_key=private_key, trusted=self.certificate)


def create_authority(folder: Path) -> Authority:
    """A new authority that trusts nobody and is trusted by whoever is told to."""
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(
        *("req", "-x509", *_NEW_KEY["ec"], "-nodes"),
        *("-subj", f"/CN={folder.name}", "-days", "2"),
        *("-keyout", folder / "authority.key", "-out", folder / "authority.pem"),
    )
    return Authority(folder)


def _openssl(*arguments: object) -> None:
    command = [require_program("openssl"), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)

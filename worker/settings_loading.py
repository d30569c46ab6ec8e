"""Where settings come from: ``MULTIMIX_*`` variables, else a TOML file, else their defaults.

The file is the one that ``MULTIMIX_SETTINGS_FILE`` names, else ``multimix.toml`` in the current
folder if it stands there. What holds a password may also stand in a file of its own, as Docker,
Kubernetes and systemd hand out secrets: ``MULTIMIX_BROKER_URL_FILE=/run/secrets/broker_url``.
Everything is checked at start; a wrong value names its setting.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import URL, make_url

from dicom_io.errors import SettingsError
from worker.settings import PREFIX, Settings

SETTINGS_FILE_VARIABLE: Final = "MULTIMIX_SETTINGS_FILE"
DEFAULT_SETTINGS_FILE: Final = "multimix.toml"
SECRET_SETTINGS: Final = ("database_url", "broker_url", "dicomweb_authorization")
_FILE_SUFFIX: Final = "_FILE"
_LONGEST_SECRET: Final = 4096
# Variables with our prefix that are no settings of the node.
_OTHER_VARIABLES: Final = frozenset({SETTINGS_FILE_VARIABLE, "MULTIMIX_REQUIRE_INTEROP"})


@dataclass(frozen=True)
class LoadedSettings:
    """Settings, and where each one comes from.

    Attributes:
        settings: the checked values.
        origins: for each setting the variable or file that gave it, or ``default``.
    """

    settings: Settings
    origins: Mapping[str, str]


def load_settings() -> Settings:
    """Read and check the settings of this process.

    Raises:
        SettingsError: a value is wrong or a name unknown; the message names the setting.
    """
    return load_settings_with_origins().settings


def load_settings_with_origins() -> LoadedSettings:
    """Read and check the settings, and remember where each comes from.

    Raises:
        SettingsError: a value is wrong or a name unknown; the message names the setting.
    """
    _refuse_unknown_variables()
    file, values = _read_settings_file()
    secrets = {name: _read_secret(name) for name in SECRET_SETTINGS if _secret_file(name)}
    values |= secrets
    origins = dict.fromkeys(Settings.model_fields, "default")
    origins |= {name: f"file {file}" for name in values if name in origins}
    origins |= {name: f"file {_secret_file(name)}" for name in secrets}
    origins |= {name: "environment" for name in origins if variable_of(name) in os.environ}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None
    return LoadedSettings(settings, origins)


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def shown_value(settings: Settings, name: str) -> str:
    """A setting's value as it may be printed: passwords in URLs are masked."""
    value = getattr(settings, name)
    if name in ("database_url", "broker_url") and value:
        return _without_passwords(make_url(value))
    if name == "dicomweb_authorization" and value:
        return "***"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value) or "(none)"
    return "(embedded)" if value is None else str(value)


def _without_passwords(url: URL) -> str:
    """A URL with its password masked, and those that stand in its query."""
    masked = {name: "***" for name in url.query if "password" in name.lower()}
    return url.update_query_dict(masked).render_as_string(hide_password=True)


def _refuse_unknown_variables() -> None:
    """A misspelt variable would otherwise leave its setting silently at the default."""
    known = {variable_of(name) for name in Settings.model_fields} | _OTHER_VARIABLES
    known |= {variable_of(name) + _FILE_SUFFIX for name in SECRET_SETTINGS}
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and variable not in known:
            close = difflib.get_close_matches(variable, known, n=1)
            raise SettingsError(
                f"{variable} is no setting of this node"
                + (f"; did you mean {close[0]}?" if close else "; remove it")
                + " `python -m worker settings` lists all"
            )


def _read_settings_file() -> tuple[Path, dict[str, Any]]:
    named = os.environ.get(SETTINGS_FILE_VARIABLE)
    file = Path(named or DEFAULT_SETTINGS_FILE)
    if not named and not file.exists():
        return file, {}
    try:
        return file, tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        raise SettingsError(
            f"the settings file {file} cannot be read ({cause.strerror}); "
            f"correct {SETTINGS_FILE_VARIABLE}"
        ) from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise SettingsError(f"the settings file {file} is not valid TOML: {cause}") from None


def _secret_file(name: str) -> str | None:
    return os.environ.get(variable_of(name) + _FILE_SUFFIX)


def _read_secret(name: str) -> str:
    """The content of the file that holds a setting; it is never told, only where it should be."""
    variable = variable_of(name) + _FILE_SUFFIX
    if variable_of(name) in os.environ:
        raise SettingsError(f"{variable_of(name)} and {variable} are both set; remove one of them")
    file = Path(_secret_file(name) or "")
    try:
        with file.open(encoding="utf-8") as opened:
            secret = opened.read(_LONGEST_SECRET + 1).strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise SettingsError(f"{variable}: {file} cannot be read ({type(cause).__name__})") from None
    if not secret or len(secret) > _LONGEST_SECRET or "\n" in secret:
        raise SettingsError(f"{variable}: {file} must hold one line with the value")
    return secret


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """One sentence for each wrong setting, without its value, which may be a password."""
    sentences = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        if not name:
            sentences.append(message)
        elif name not in origins:
            close = difflib.get_close_matches(name, list(origins), n=1)
            hint = f"; did you mean {close[0]}?" if close else "; remove it"
            sentences.append(f"{name} in the settings file is no setting of this node{hint}")
        else:
            sentences.append(f"{variable_of(name)} ({origins[name]}): {message}")
    return "; ".join(sentences)

"""Programs from outside the Python environment that judge what the node makes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def require_program(name: str) -> str:
    """Path of a program, also looked for where Debian hides servers from users.

    Where it is missing the test is skipped, unless MULTIMIX_REQUIRE_INTEROP=1 makes that a failure.
    """
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        if os.environ.get("MULTIMIX_REQUIRE_INTEROP") == "1":
            pytest.fail(f"{name} is required by MULTIMIX_REQUIRE_INTEROP=1 and is not installed")
        pytest.skip(f"{name} is not installed")
    return path


def output_of(program: str, *arguments: str | Path) -> str:
    """Run a program to its end and return what it printed on both streams."""
    done = subprocess.run(
        [require_program(program), *map(str, arguments)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return (done.stdout + done.stderr).decode("utf-8", errors="replace")

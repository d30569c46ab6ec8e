"""Nothing that comes from a network, a broker or a file is ever unpickled."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.queueing import create_app
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
PACKAGES = ("dicom_io", "model", "worker")
PICKLING_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve"}
LOADERS = {"torch", "numpy"}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def unpickling(path: Path) -> Iterator[str]:
    """Where a source file imports a pickling module, or loads what may be a pickle."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
            if node.module in LOADERS and any(alias.name == "load" for alias in node.names):
                yield f"line {node.lineno} hides which load it calls"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from unsafe_load(node, node.func)
            continue
        else:
            continue
        for name in names & PICKLING_MODULES:
            yield f"line {node.lineno} imports {name}"


def unsafe_load(call: ast.Call, function: ast.Attribute) -> Iterator[str]:
    """Loads of torch that may unpickle unless told not to, and of NumPy that are told to."""
    if not isinstance(function.value, ast.Name) or function.attr != "load":
        return
    values = {
        keyword.arg: keyword.value.value
        for keyword in call.keywords
        if isinstance(keyword.value, ast.Constant)
    }
    if function.value.id == "torch" and values.get("weights_only") is not True:
        yield f"line {call.lineno} loads more than weights"
    if function.value.id in ("np", "numpy") and values.get("allow_pickle", False) is not False:
        yield f"line {call.lineno} allows a pickle"


def test_no_source_file_unpickles() -> None:
    assert len(sources()) > 50
    found = {str(path.relative_to(ROOT)): list(unpickling(path)) for path in sources()}
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "from torch import load\nload('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "from numpy import load\nload('x', allow_pickle=True)",
    ],
)
def test_what_would_unpickle_is_found(tmp_path: Path, source: str) -> None:
    file = tmp_path / "source.py"
    file.write_text(source)
    assert list(unpickling(file))


def test_celery_speaks_json_alone(settings: Settings) -> None:
    configuration = create_app(settings, "redis://127.0.0.1:1/0").conf
    assert list(configuration.accept_content) == ["json"]
    assert configuration.task_serializer == configuration.event_serializer == "json"
    assert configuration.result_backend is None

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


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def unpickling(path: Path) -> Iterator[str]:
    """Where a source file imports a pickling module, or loads what may be a pickle."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    origins = origins_of_names(tree)
    for origin in origins.values():
        if origin.partition(".")[0] in PICKLING_MODULES:
            yield f"imports {origin}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and is_unsafe_load(node, full_name(node.func, origins)):
            yield f"line {node.lineno} loads what may be a pickle"


def origins_of_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for, wherever in the file it is imported."""
    origins: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                origins[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origins[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return origins


def full_name(function: ast.expr, origins: dict[str, str]) -> str:
    """The dotted name of what is called, by whatever name it was imported; or empty."""
    if isinstance(function, ast.Attribute):
        return f"{full_name(function.value, origins)}.{function.attr}"
    return origins.get(function.id, "") if isinstance(function, ast.Name) else ""


def is_unsafe_load(call: ast.Call, name: str) -> bool:
    """Loads of torch that may unpickle unless told not to, and of NumPy unless that is left out."""
    module = name.partition(".")[0]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if not name.endswith(".load") or module not in ("torch", "numpy"):
        return False
    if module == "torch":
        return not is_constant(given.get("weights_only"), True)
    # The third argument by place is allow_pickle, too, and **options may hold it.
    may_be_told = "allow_pickle" in given or None in given or len(call.args) > 2
    return may_be_told and not is_constant(given.get("allow_pickle"), False)


def is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


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
        "import torch as t\nt.load('x')",
        "import torch.serialization\ntorch.serialization.load('x')",
        "from torch.serialization import load as read\nread('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "from numpy import load\nload('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', None, True)",
        "import numpy as np\nnp.load('x', allow_pickle=wanted)",
        "import numpy as np\nnp.load('x', **options)",
    ],
)
def test_what_would_unpickle_is_found(tmp_path: Path, source: str) -> None:
    file = tmp_path / "source.py"
    file.write_text(source)
    assert list(unpickling(file))


@pytest.mark.parametrize(
    "source",
    [
        "import json\njson.load(file)",
        "import torch\ntorch.load('x', weights_only=True)",
        "import numpy as np\nnp.load('x', mmap_mode='r')",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
    ],
)
def test_what_does_not_unpickle_is_left_alone(tmp_path: Path, source: str) -> None:
    file = tmp_path / "source.py"
    file.write_text(source)
    assert not list(unpickling(file))


def test_celery_speaks_json_alone(settings: Settings) -> None:
    configuration = create_app(settings, "redis://127.0.0.1:1/0").conf
    assert list(configuration.accept_content) == ["json"]
    assert configuration.task_serializer == configuration.event_serializer == "json"
    assert configuration.result_backend is None

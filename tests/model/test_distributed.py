"""Several processes, really started by torchrun, learn what one process learns."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dicom_io.errors import TrainingError
from model.distributed import Ranks, joined_ranks, require_divisible
from model.network import MultiMixNetwork, NetworkShape
from model.presets import configure
from tests.model.exports import manifest_row, write_export

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    'stages=[{"side":32,"steps":6}]',
    "validate_every=3",
    "class_batch=3",
    "mask_batch=3",
    "unlabelled_batch=3",
    "validation_share=0.3",
    "dropout=0",  # each process drops other elements
    "precision=fp32",
    "pseudo_label_threshold=0.5",
    # Adam turns the rounding of a gradient near zero into a whole step; here it is a short one.
    "learning_rate=1e-5",
)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def unlabelled_sometimes(number: int) -> str:
        return manifest_row(number).replace("normal", "" if number % 6 == 0 else "normal")

    return write_export(tmp_path_factory.mktemp("export"), 24, unlabelled_sometimes)


def command(export: Path, out: Path, *options: str, processes: int) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return [
        sys.executable,
        *(launcher if processes > 1 else ()),
        *("-m", "model.train", "--device", "cpu"),
        *("--data", str(export), "--out", str(out), "--cache", str(export.parent / "cache")),
        *(("--resume",) if "--resume" in options else (*settings, *options)),
    ]


def train_on(processes: int, export: Path, out: Path, *options: str) -> str:
    done = subprocess.run(
        command(export, out, *options, processes=processes),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_two_processes(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script, really started by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [sys.executable, *launcher, str(script), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def trajectory(out: Path) -> list[dict[str, float]]:
    with (out / "metrics.csv").open(newline="") as file:
        return [
            {k: float(v) for k, v in row.items() if v and k != "seconds"}
            for row in csv.DictReader(file)
        ]


def weights(out: Path) -> dict[str, torch.Tensor]:
    (state,) = (out / "state").glob("step-*.safetensors")
    return {k: v for k, v in load_file(state).items() if k.startswith(("student", "teacher"))}


def mean_gradients(out: Path) -> torch.Tensor:
    """Adam's first moments: the gradients of all steps, the last ones counting most."""
    (state,) = (out / "state").glob("step-*.safetensors")
    moments = {k: v for k, v in load_file(state).items() if k.endswith("exp_avg")}
    return torch.cat([moments[name].flatten() for name in sorted(moments)])


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(("--preset", "paper"), id="paper"),
        pytest.param(
            # At 32 px the instance norm that context reads would divide by the spread of four
            # values, and rounding with it; and the shorter Adam's steps, the less of rounding
            # they turn into other weights.
            (
                *("--preset", "best", "--set", "learning_rate=1e-7"),
                *("--set", 'stages=[{"side":64,"steps":6}]'),
            ),
            id="best",
        ),
    ],
)
def test_two_processes_learn_what_one_does(
    settings: tuple[str, ...], export: Path, tmp_path: Path
) -> None:
    train_on(1, export, tmp_path / "one", *settings)
    printed = train_on(2, export, tmp_path / "two", *settings)
    assert printed.count("held out") == 1, "one process speaks for both"
    one, two = trajectory(tmp_path / "one"), trajectory(tmp_path / "two")
    assert [row["step"] for row in two] == [3, 6]
    for mine, theirs in zip(one, two, strict=True):
        losses = {name: value for name, value in mine.items() if name.startswith("mean_")}
        assert len(losses) >= 4
        for name, value in losses.items():
            assert theirs[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    reference, found = (mean_gradients(tmp_path / name) for name in ("one", "two"))
    assert (found - reference).norm() < 0.01 * reference.norm()


def test_two_processes_leave_alone_what_no_loss_reaches(export: Path, tmp_path: Path) -> None:
    """A gradient of zero in place of none would let the weights of a head without a task decay."""
    train_on(2, export, tmp_path, "--preset", "best", "--model", "unet")
    torch.manual_seed(0)
    untouched = MultiMixNetwork(configure("best", model="unet").network_shape).classifier.weight
    assert torch.equal(weights(tmp_path)["student.classifier.weight"], untouched)


def test_processes_that_see_different_films_refuse_to_train(export: Path, tmp_path: Path) -> None:
    other = write_export(tmp_path / "other", 23, manifest_row)
    script = tmp_path / "one_each.py"
    script.write_text(ONE_EXPORT_EACH)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    done = on_two_processes(script, export, other, tmp_path / "run", *settings)
    assert done.returncode != 0
    assert "give every machine the same exports" in done.stdout + done.stderr


def test_a_signal_to_one_process_stops_both_and_both_go_on(export: Path, tmp_path: Path) -> None:
    train_on(2, export, tmp_path / "whole")
    out = tmp_path / "stopped"
    words = command(export, out, "--set", "validate_every=1", processes=2)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        for line in launcher.stdout:
            if line.startswith(b"step 1 "):
                break
        second = process_of_rank(launcher.pid, 1)
        os.kill(second, signal.SIGTERM)
        printed = launcher.stdout.read().decode()
        assert launcher.wait(60) == 0, printed
    assert "stopped by a signal" in printed
    assert (out / "state" / "state.json").exists()
    train_on(2, export, out, "--resume")
    for name, found in weights(out).items():
        assert torch.equal(found, weights(tmp_path / "whole")[name]), name


def process_of_rank(launcher: int, rank: int) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        for child in map(int, children):
            if f"RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
                return child
        time.sleep(0.05)
    raise AssertionError(f"no process of rank {rank}")


ONE_EXPORT_EACH = """
import os, sys
import typer
from model.train import main
first, second, out, *settings = sys.argv[1:]
data = second if os.environ["RANK"] == "1" else first
cache = out + "-cache"
sys.argv[1:] = ["--device", "cpu", "--data", data, "--out", out, "--cache", cache, *settings]
typer.run(main)
"""
WAITING_PROCESS = """
import torch
from model.distributed import joined_ranks
with joined_ranks("cpu") as ranks:
    if ranks.is_first:
        group = torch.distributed.distributed_c10d._get_default_group()
        print(group._get_backend(torch.device("cpu")).options._timeout.total_seconds())
"""
THREADS_LEFT = """
from pathlib import Path
import torch
from model.distributed import joined_ranks, largest_of
with joined_ranks("cpu") as ranks:
    weight = torch.nn.Parameter(torch.ones(1))
    weight.sum().backward()
    torch.optim.AdamW([weight]).step()
    largest_of(1.0, ranks, torch.device("cpu"))
    during = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
after = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
print(*(f"{when}-{sum('gloo' in name for name in names)}" + chr(10)
        for when, names in (("during", during), ("after", after))), sep="", end="", flush=True)
"""


def test_the_threads_of_a_group_end_with_it_or_they_abort_the_process_at_its_end(
    tmp_path: Path,
) -> None:
    script = tmp_path / "threads.py"
    script.write_text(THREADS_LEFT)
    done = on_two_processes(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("during-0") == 0
    assert done.stdout.count("during-") == done.stdout.count("after-0") == 2, done.stdout


def test_processes_wait_for_hours_while_the_first_reads_an_archive(tmp_path: Path) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(WAITING_PROCESS)
    done = on_two_processes(script)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) >= 12 * 3600


@pytest.mark.parametrize(("batch", "count"), [(10, 3), (12, 4), (2, 2), (7, 5)])
def test_parts_of_a_batch_cover_it_once_and_differ_by_one_at_most(batch: int, count: int) -> None:
    parts = [list(range(batch))[Ranks(rank, count).part_of(batch)] for rank in range(count)]
    assert [place for part in parts for place in part] == list(range(batch))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_smaller_than_the_processes_is_refused() -> None:
    config = configure("paper", model="unet", overrides=("mask_batch=2", "class_batch=1"))
    require_divisible(config, Ranks(0, 2))  # a U-Net draws no labelled images
    with pytest.raises(TrainingError, match="mask_batch is 2, too few for 3 processes"):
        require_divisible(config, Ranks(0, 3))


def test_what_torchrun_did_not_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(TrainingError, match="torchrun"), joined_ranks("cpu"):
        pass


def test_the_network_never_mixes_the_images_of_a_batch() -> None:
    """What the split of a batch over processes rests on."""
    for changes in ({}, {"encoder_norm": "group", "local_contrast": True, "residual": True}):
        torch.manual_seed(0)
        network = MultiMixNetwork(NetworkShape(channels=(8, 8, 8, 8, 8), **changes)).eval()
        images = torch.rand(4, 1, 32, 32) * 2 - 1
        whole = network(images)
        for place in range(4):
            alone = network(images[place : place + 1])
            torch.testing.assert_close(alone.logits[0], whole.logits[place])
            torch.testing.assert_close(alone.mask_logits[0], whole.mask_logits[place])


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cuda:1", "cuda:1 is one device"),
        ("cuda", "process 999 of this machine has no CUDA device"),
    ],
)
def test_processes_without_a_device_of_their_own_are_told_so(monkeypatch, device, told):
    for name, value in (("WORLD_SIZE", "1000"), ("RANK", "999"), ("LOCAL_RANK", "999")):
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=told), joined_ranks(device):
        pass

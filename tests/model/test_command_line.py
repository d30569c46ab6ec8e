import inspect
import io

import pytest
import torch
import typer
from rich.console import Console

from dicom_io.errors import TrainingError
from model import evaluate, register, report, reproduce, train
from model.command_line import Device, chosen_device, problems_explained


def said(problem):
    printed = io.StringIO()
    with pytest.raises(typer.Exit) as ended, problems_explained(Console(file=printed, width=20)):
        raise problem
    assert ended.value.exit_code == 1
    return printed.getvalue()


def test_a_problem_is_told_as_it_stands_and_ends_the_command_with_status_1():
    text = "/data/[red]/[/x] holds a run already; --resume goes on with it"
    assert said(TrainingError(text)) == text + "\n"


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "none").read_text()
    assert said(missing.value) == f"{tmp_path / 'none'}: No such file or directory\n"


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), problems_explained(Console(file=io.StringIO())):
        _ = 1 / 0


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_an_unknown_device_is_refused_by_name(name):
    with pytest.raises(TrainingError, match="unknown device"):
        chosen_device(name)


@pytest.mark.parametrize("command", [train, evaluate, report, register, reproduce])
def test_every_command_that_runs_a_network_chooses_its_device_alike(command):
    device = inspect.signature(command.main).parameters["device"]
    assert (device.annotation, device.default) == (Device, "auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_auto_is_the_processor_and_cuda_is_refused():
    assert chosen_device("auto") == chosen_device("cpu") == "cpu"
    with pytest.raises(TrainingError, match="no CUDA device"):
        chosen_device("cuda:1")

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from model.survivable_pool import Outcome, SurvivablePool

ROOT = Path(__file__).parents[2]


def nothing(_):
    return None


def square(number):
    return number * number


def square_or_die(number):
    if number % 50 == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def square_or_count_for_ever(number):
    if number % 50 == 7:
        sum(iter(int, 1))  # in C, where no handler written in Python is asked
    return number * number


def square_after_half_a_second(number):
    time.sleep(0.5)
    return number * number


def test_results_come_in_order_whoever_makes_them():
    with closing(SurvivablePool(2)) as pool:
        outcomes = list(pool.in_order(square, range(200), nothing))
    assert outcomes == [Outcome(n, n * n, is_new=True) for n in range(200)]


def test_what_is_known_is_not_made_again():
    def known(number):
        return None if number % 3 else -1

    with closing(SurvivablePool(1)) as pool:
        outcomes = list(pool.in_order(square, range(40), known))
    assert [o.is_new for o in outcomes] == [n % 3 != 0 for n in range(40)]
    assert [o.made for o in outcomes] == [n * n if n % 3 else -1 for n in range(40)]


def test_only_the_thing_that_ends_its_process_is_lost():
    with closing(SurvivablePool(2)) as pool:
        outcomes = list(pool.in_order(square_or_die, range(120), nothing))
    assert [o.made for o in outcomes] == [None if n % 50 == 7 else n * n for n in range(120)]


def test_only_the_thing_that_comes_to_no_end_is_lost():
    with closing(SurvivablePool(2, longest_seconds=0.5)) as pool:
        outcomes = list(pool.in_order(square_or_count_for_ever, range(60), nothing))
    assert [o.made for o in outcomes] == [None if n % 50 == 7 else n * n for n in range(60)]


def test_a_thing_that_takes_its_time_without_a_processor_is_not_lost():
    with closing(SurvivablePool(1, longest_seconds=0.2)) as pool:
        outcomes = list(pool.in_order(square_after_half_a_second, [3], nothing))
    assert [o.made for o in outcomes] == [9]


def test_things_are_taken_a_bounded_number_ahead():
    taken = []

    def given():
        for number in range(10_000):
            taken.append(number)
            yield number

    with closing(SurvivablePool(1)) as pool:
        next(pool.in_order(square, given(), nothing))
    assert len(taken) < 100


def test_an_error_of_the_function_is_not_hidden():
    with closing(SurvivablePool(1)) as pool, pytest.raises(TypeError):
        list(pool.in_order(square, ["x"], nothing))


PARENT = """
import os, sys, time
from contextlib import closing
from model.survivable_pool import SurvivablePool

with closing(SurvivablePool(2)) as pool:
    for outcome in pool.in_order(time.sleep, [0] * 16 + [600] * 64, {}.get):
        print(*(p for p in pool._pool._processes), flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
def test_processes_end_with_a_parent_that_is_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    processes = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert processes
    deadline = time.monotonic() + 20
    while any(is_running(process) for process in processes):
        assert time.monotonic() < deadline, "a process outlived its parent"
        time.sleep(0.05)


def is_running(process: str) -> bool:
    try:
        state = (Path("/proc") / process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"

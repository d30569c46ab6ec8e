"""The short form of ``make chaos``, which is what CI runs at full length."""

from pathlib import Path

import pytest

from tests.chaos.chaos import Plan, run_chaos


@pytest.mark.timeout(900)
@pytest.mark.xdist_group("chaos")
@pytest.mark.parametrize(
    "servers", [False, pytest.param(True, marks=pytest.mark.interop)], ids=["embedded", "servers"]
)
def test_whatever_is_killed_nothing_acknowledged_is_lost_and_nothing_doubled(
    tmp_path: Path, servers: bool
) -> None:
    plan = Plan(studies=15, kills=7 if servers else 5, seed=7, servers=servers)
    report = run_chaos(plan, tmp_path)
    assert report.is_good, report
    assert (report.acknowledged, report.kills) == (plan.studies, plan.kills)
    assert report.slowest_recovery_s < 60, report

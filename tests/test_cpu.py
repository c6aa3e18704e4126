"""The number of cores is that of a container's limit."""

import os
from pathlib import Path

import pytest

from deeprank import cpu
from deeprank.cpu import num_cores


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 6), ("max 100000", 6), ("", 6)]
)
def test_cores_are_those_of_the_quota(quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(cpu, "CGROUP_V2", file)
    assert num_cores() == expected


def test_the_older_form_of_the_quota_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    files = (tmp_path / "quota", tmp_path / "period")
    monkeypatch.setattr(cpu, "CGROUP_V2", tmp_path / "none")
    monkeypatch.setattr(cpu, "CGROUP_V1", files)
    assert num_cores() == 6
    for quota, expected in (("300000", 3), ("-1", 6)):
        files[0].write_text(f"{quota}\n")
        files[1].write_text("100000\n")
        assert num_cores() == expected

"""The doctor names what is wrong or slow on a machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from backtest.cli import cli, doctor


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(doctor, "PROBE_BARS", 40_000)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_the_command_tells_versions_threads_memory_and_speed(cache) -> None:
    answer = CliRunner().invoke(cli, ["doctor", "--json"], catch_exceptions=False)
    told = json.loads(answer.output)
    assert set(told) == {"ok", "facts", "wrong", "slow"}
    assert {"python", "numba", "cores", "memory", "disk", "kernel cache", "sweep"} <= set(told["facts"])
    assert answer.exit_code == (0 if told["ok"] else 1)


def test_a_damaged_cache_is_named(cache) -> None:
    (cache / "kernel.nbc").write_bytes(b"x" * 100)
    found = doctor.diagnose()
    assert any("1 files of the kernel cache are damaged" in each for each in found.slow)


def test_what_is_switched_off_or_full_is_wrong(cache, monkeypatch) -> None:
    wrong: list[str] = []
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert doctor._cache(wrong, []) == "switched off"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5 << 20})())
    doctor._disk(wrong)
    assert "NUMBA_DISABLE_JIT is set" in wrong[0] and "0.0 GiB of disk are left here" in wrong[1]


def test_a_quota_below_the_cores_is_slow(monkeypatch) -> None:
    slow: list[str] = []
    monkeypatch.setattr(doctor, "_cgroup_cores", lambda: 0.5)
    doctor._cores(slow)
    assert "a quota allows 0.5 of" in slow[0]

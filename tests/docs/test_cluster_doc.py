"""What docs/cluster.md gives to copy parses and names options that exist; its script runs on a stand-in for SLURM."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import backtest as bt
from tests._support.histories import history_of, random_rows

pytest.importorskip("distributed")
yaml = pytest.importorskip("yaml")

TEXT = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
STAND_IN = """\
from distributed import LocalCluster


class SLURMCluster(LocalCluster):
    def __init__(self, queue, cores, processes, memory, walltime, worker_extra_args, scheduler_options):
        super().__init__(n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0")

    def scale(self, n=0, jobs=None):
        assert jobs in (None, 10)
        super().scale(n if jobs is None else 1)
"""


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)


def test_the_script_for_slurm_gives_the_table_that_threads_give(tmp_path) -> None:
    bt.write_history(history_of(random_rows(1, 400), "AAA"), tmp_path / "data")
    (tmp_path / "sweep.toml").write_text(
        '[data]\npath = "data"\n[sweep]\nleverage = [5, 20]\nhorizon = ["1d"]\nmaintenance = [0.01]\n'
    )
    (tmp_path / "dask_jobqueue.py").write_text(STAND_IN)
    (script,) = blocks("python")
    (tmp_path / "sweep_slurm.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "sweep_slurm.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"1,\d\d\d verdicts in runs/sweep\n", done.stdout)
    here = bt.run(tmp_path / "sweep.toml", out=tmp_path / "here")
    assert (tmp_path / "runs/sweep/survival.parquet").read_bytes() == (here.place / "survival.parquet").read_bytes()


def test_the_manifest_parses_and_its_parts_name_each_other() -> None:
    from distributed.cli import dask_scheduler, dask_worker

    from backtest.cli import cli

    (text,) = blocks("yaml")
    cluster, config, volume, job = yaml.safe_load_all(text)
    assert [one["kind"] for one in (cluster, config, volume, job)] == [
        "DaskCluster",
        "ConfigMap",
        "PersistentVolumeClaim",
        "Job",
    ]
    parts = cluster["spec"]["worker"]["spec"], cluster["spec"]["scheduler"]["spec"], job["spec"]["template"]["spec"]
    (worker,), (scheduler,), (run,) = (part["containers"] for part in parts)
    assert len({one["image"] for one in (worker, scheduler, run)}) == 1
    for container, words, command in (
        (worker, ["dask", "worker"], dask_worker.main),
        (scheduler, ["dask", "scheduler"], dask_scheduler.main),
        (run, ["backtest", "run"], cli.commands["run"]),
    ):
        assert container["args"][:2] == words
        given = command.make_context(words[1], list(container["args"][2:])).params  # refuses unknown options
    name, ports = cluster["metadata"]["name"], cluster["spec"]["scheduler"]["service"]["ports"]
    assert given["scheduler"] == f"tcp://{name}-scheduler:{ports[0]['port']}" and given["resume"]
    selector = cluster["spec"]["scheduler"]["service"]["selector"]
    assert selector == {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    mounts = {mount["name"]: mount["mountPath"] for mount in run["volumeMounts"]}
    volumes = {one["name"]: one for one in parts[2]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == volume["metadata"]["name"]
    assert given["config"] == f"{mounts['config']}/sweep.toml" and given["out"].startswith(mounts["runs"])


def test_the_configuration_of_the_manifest_is_one(tmp_path) -> None:
    from backtest.config.models import load_config

    (text,) = blocks("yaml")
    config = list(yaml.safe_load_all(text))[1]
    (tmp_path / "sweep.toml").write_text(config["data"]["sweep.toml"])
    assert len(load_config(tmp_path / "sweep.toml").sweep.leverage) == 125


def test_commands_by_hand_have_options_that_exist() -> None:
    from distributed.cli import dask_scheduler, dask_worker

    for name, command in (("scheduler", dask_scheduler.main), ("worker", dask_worker.main)):
        (line,) = re.findall(rf"^dask {name} (.*?) *#", TEXT, re.MULTILINE)
        assert command.make_context(name, line.split()).params

"""Schedules in a crontab that is a file: one entry per config, other lines unchanged; scripts run as cron runs them."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from crontab import CronTab

from deeprank.errors import ConfigError
from deeprank.home import PROJECT, home
from pipelines import cron

OTHER_LINES = "MAILTO=me\n# a remark\n15 4 * * * /usr/bin/backup --all # weekly\n\n@daily date +\\%F >> /tmp/days\n"
CONFIG = PROJECT / "configs" / "retrain.yaml"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPRANK_HOME", str(tmp_path / "state folder"))


@pytest.fixture
def crontab(tmp_path: Path) -> CronTab:
    file = tmp_path / "crontab"
    file.write_text(OTHER_LINES)
    return CronTab(tabfile=str(file))


def _install(crontab: CronTab, expression: str, config: Path = CONFIG) -> str:
    cron.set_entry(crontab, expression, home() / "schedule" / f"{config.stem}.sh", config)
    cron.save(crontab)
    return Path(crontab.filen).read_text()


def test_installing_twice_replaces_and_keeps_other_lines(crontab: CronTab) -> None:
    _install(crontab, "0 3 * * *")
    text = _install(crontab, "30 4 * * 1")
    assert all(line in text for line in OTHER_LINES.splitlines())
    own_lines = [line for line in text.splitlines() if "deeprank" in line]
    assert own_lines == [f"30 4 * * 1 '{home()}/schedule/retrain.sh' # deeprank retraining {home()} {CONFIG}"]
    (entry,) = cron.crontab_entries(CronTab(tabfile=crontab.filen))
    assert (entry.cron, entry.config, entry.backend) == ("30 4 * * 1", str(CONFIG), "cron")
    assert entry.log == str(home() / "logs" / "retrain.log")


def test_removing_takes_one_entry_or_all_of_this_state_folder(crontab: CronTab, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path(crontab.filen).read_text()
    for name in ("retrain", "other"):
        _install(crontab, "0 3 * * *", CONFIG.with_stem(name))
    monkeypatch.setenv("DEEPRANK_HOME", "/another")
    assert cron.crontab_entries(crontab) == []
    assert cron.remove_entries(crontab, None) == 0
    monkeypatch.undo()
    monkeypatch.setenv("DEEPRANK_HOME", str(Path(crontab.filen).with_name("state folder")))
    assert cron.remove_entries(crontab, Path("elsewhere/other.yaml")) == 1
    assert [Path(entry.config).stem for entry in cron.crontab_entries(crontab)] == ["retrain"]
    assert cron.remove_entries(crontab, None) == 1
    cron.save(crontab)
    assert Path(crontab.filen).read_text() == before


def test_a_crontab_with_an_unreadable_line_is_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "odd"
    file.write_text("MAILTO = me\nnot a line at all\n")
    with pytest.raises(ConfigError, match="the crontab was not changed: Invalid line"):
        _install(CronTab(tabfile=str(file)), "0 3 * * *")
    assert file.read_text() == "MAILTO = me\nnot a line at all\n"


def test_the_script_runs_with_an_empty_environment_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_folder = tmp_path / "an environment" / "bin"
    bin_folder.mkdir(parents=True)
    zenml = bin_folder / "zenml"
    zenml.write_text('#!/bin/sh\npwd\necho "$@"\nenv\nexit 75\n')
    zenml.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bin_folder / "python"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///it's here")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "do not write this down")
    monkeypatch.chdir(tmp_path)
    assert cron.secret_variables() == ["MLFLOW_TRACKING_TOKEN"]
    script = cron.write_script(CONFIG, "a stack", 60)
    assert stat.S_IMODE(script.stat().st_mode) == 0o700
    result = subprocess.run(["/bin/sh", "-c", f"'{script}'"], cwd="/", env={"HOME": "/"}, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (75, "", "")
    log = (home() / "logs" / "retrain.log").read_text().splitlines()
    assert log[0].endswith("starting")
    assert log[-1].endswith("ended with exit code 75")
    assert log[1:3] == [str(tmp_path), f"pipeline run pipelines.retraining -c {CONFIG} -s a stack"]
    variables = {"DEEPRANK_WAIT=60", f"DEEPRANK_HOME={home()}", "MLFLOW_TRACKING_URI=sqlite:///it's here", f"PATH={os.environ['PATH']}"}
    assert variables <= set(log)
    assert not any("do not write" in line for line in log)


def test_without_cron_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"cron is not installed .*apt install cron"):
        cron.user_crontab()

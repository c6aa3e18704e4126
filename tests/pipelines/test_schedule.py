"""Entries in a crontab kept in a file: one a config, others' lines as they were; and scripts that run as cron runs them."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from crontab import CronTab

from deeprank.errors import ConfigError
from deeprank.home import PROJECT, home
from pipelines import schedule

OTHERS = "MAILTO=me\n# a remark\n15 4 * * * /usr/bin/backup --all # weekly\n\n@daily date +\\%F >> /tmp/days\n"
CONFIG = PROJECT / "configs" / "retrain.yaml"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPRANK_HOME", str(tmp_path / "state folder"))


@pytest.fixture
def tab(tmp_path: Path) -> CronTab:
    file = tmp_path / "crontab"
    file.write_text(OTHERS)
    return CronTab(tabfile=str(file))


def _put(tab: CronTab, cron: str, config: Path = CONFIG) -> str:
    schedule.put(tab, cron, home() / "schedule" / f"{config.stem}.sh", config)
    schedule.save(tab)
    return Path(tab.filen).read_text()


def test_installing_twice_replaces_and_leaves_the_lines_of_others(tab: CronTab) -> None:
    _put(tab, "0 3 * * *")
    text = _put(tab, "30 4 * * 1")
    assert all(line in text for line in OTHERS.splitlines())
    ours = [line for line in text.splitlines() if "deeprank" in line]
    assert ours == [f"30 4 * * 1 '{home()}/schedule/retrain.sh' # deeprank retraining {home()} {CONFIG}"]
    (entry,) = schedule.in_crontab(CronTab(tabfile=tab.filen))
    assert (entry.cron, entry.config, entry.kept_by) == ("30 4 * * 1", str(CONFIG), "cron")
    assert entry.log == str(home() / "logs" / "retrain.log")


def test_removing_takes_the_one_that_is_named_or_all_of_this_state_folder(tab: CronTab, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path(tab.filen).read_text()
    for name in ("retrain", "other"):
        _put(tab, "0 3 * * *", CONFIG.with_stem(name))
    monkeypatch.setenv("DEEPRANK_HOME", "/another")
    assert schedule.in_crontab(tab) == []
    assert schedule.drop(tab, None) == 0
    monkeypatch.undo()
    monkeypatch.setenv("DEEPRANK_HOME", str(Path(tab.filen).with_name("state folder")))
    assert schedule.drop(tab, Path("elsewhere/other.yaml")) == 1
    assert [Path(entry.config).stem for entry in schedule.in_crontab(tab)] == ["retrain"]
    assert schedule.drop(tab, None) == 1
    schedule.save(tab)
    assert Path(tab.filen).read_text() == before


def test_a_crontab_with_a_line_that_would_be_lost_is_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "odd"
    file.write_text("MAILTO = me\nnot a line at all\n")
    with pytest.raises(ConfigError, match="left as it was: Invalid line"):
        _put(CronTab(tabfile=str(file)), "0 3 * * *")
    assert file.read_text() == "MAILTO = me\nnot a line at all\n"


@pytest.mark.parametrize("cron", ["", "every night", "0 25 * * *", "60 3 * * *", "0 3 * *", "0 0 3 * * *", "@daily", "*/0 * * * *"])
def test_what_is_no_time_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'--cron "{cron}" is no time') + r'.*"0 3 \* \* \*"'):
        schedule.valid_cron(cron)


@pytest.mark.parametrize("cron", ["0 3 * * *", "*/5 * * * *", "0 3 * * mon-fri", "0 3 1,15 * *"])
def test_a_time_is_taken_as_it_is_but_for_spaces(cron: str) -> None:
    assert schedule.valid_cron(f" {cron.replace(' ', '  ')}") == cron


def test_a_config_is_read_to_the_letter_before_anything_is_installed(tmp_path: Path) -> None:
    assert schedule.valid_config(CONFIG) == CONFIG
    with pytest.raises(ConfigError, match=r"no/such\.yaml is no file; configs/retrain\.yaml is a ready one"):
        schedule.valid_config(Path("no/such.yaml"))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("parameters:\n  retraining_due: {min_new_image: 3}\n")
    with pytest.raises(ConfigError, match=r"unknown key parameters\.due\.min_new_image; did you mean min_new_images\?"):
        schedule.valid_config(wrong)


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
    script = schedule.write_script(CONFIG, "a stack", 60)
    assert stat.S_IMODE(script.stat().st_mode) == 0o700
    done = subprocess.run(["/bin/sh", "-c", f"'{script}'"], cwd="/", env={"HOME": "/"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "")
    log = (home() / "logs" / "retrain.log").read_text().splitlines()
    assert log[0].endswith("starting")
    assert log[-1].endswith("ended with exit code 75")
    assert log[1:3] == [str(tmp_path), f"pipeline run pipelines.retraining -c {CONFIG} -s a stack"]
    assert {"DEEPRANK_WAIT=60", f"DEEPRANK_HOME={home()}", "MLFLOW_TRACKING_URI=sqlite:///it's here", f"PATH={os.environ['PATH']}"} <= set(
        log
    )
    assert not any("do not write" in line for line in log)


def test_without_cron_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"cron is not installed .*apt install cron"):
        schedule.user_crontab()

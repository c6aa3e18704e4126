"""The arguments of `deeprank schedule install` are checked before anything is installed."""

import re
from pathlib import Path

import pytest

from deeprank.errors import ConfigError
from deeprank.home import PROJECT
from pipelines import schedule

CONFIG = PROJECT / "configs" / "retrain.yaml"


@pytest.mark.parametrize("cron", ["", "every night", "0 25 * * *", "60 3 * * *", "0 3 * *", "0 0 3 * * *", "@daily", "*/0 * * * *"])
def test_an_invalid_cron_expression_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'--cron "{cron}" is not a valid cron expression') + r'.*"0 3 \* \* \*"'):
        schedule.valid_cron(cron)


@pytest.mark.parametrize("cron", ["0 3 * * *", "*/5 * * * *", "0 3 * * mon-fri", "0 3 1,15 * *"])
def test_a_valid_cron_expression_keeps_all_but_its_spaces(cron: str) -> None:
    assert schedule.valid_cron(f" {cron.replace(' ', '  ')}") == cron


def test_a_config_is_checked_strictly(tmp_path: Path) -> None:
    assert schedule.valid_config(CONFIG) == CONFIG
    with pytest.raises(ConfigError, match=r"no/such\.yaml is not a file; configs/retrain\.yaml is an example"):
        schedule.valid_config(Path("no/such.yaml"))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("parameters:\n  retraining_due: {min_new_image: 3}\n")
    with pytest.raises(ConfigError, match=r"unknown key parameters\.retraining_due\.min_new_image; did you mean min_new_images\?"):
        schedule.valid_config(wrong)

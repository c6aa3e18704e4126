"""Every command has help."""

import pytest

from deeprank.cli import COMMANDS
from tests.cli.conftest import Run

# `deeprank schedule --help` is printed by a process of its own.
NAMES = [command.__name__ for commands in COMMANDS.values() for command in commands if command.__name__ != "schedule"]


@pytest.mark.parametrize("command", NAMES)
def test_every_command_has_help(deeprank: Run, command: str) -> None:
    code, out, _ = deeprank(command, "--help")
    assert code == 0
    assert f"Usage: deeprank {command}" in out

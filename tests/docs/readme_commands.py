"""Print the commands of README.md, one per line and in order: `python -m tests.docs.readme_commands`."""

from deeprank.home import PROJECT
from tests.docs.documents import shell_lines


def readme_commands() -> list[str]:
    """Return the commands in the bash blocks of README.md, in order."""
    return list(shell_lines((PROJECT / "README.md").read_text()))


if __name__ == "__main__":
    print("\n".join(readme_commands()))

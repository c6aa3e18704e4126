"""No name, message or document has a word that docs/glossary.md forbids; each failure says `file:line: word -> use TERM`."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from deeprank.home import PROJECT
from tests.docs import glossary
from tests.docs.glossary import GLOSSARY, Rule, Text, project_files

RULES = glossary.read_rules(GLOSSARY.read_text(encoding="utf-8"))
FORBIDDEN = {rule.parts: rule for rule in RULES if rule.scope == "anywhere"}
IN_NAMES = {rule.parts: rule for rule in RULES if rule.scope != "as_name"}
AS_NAMES = {rule.parts: rule for rule in RULES if rule.scope == "as_name"}
LENGTHS = {len(parts) for parts in IN_NAMES}
# Whole words in any case, with a space, hyphen or underscore between parts.
WORDS = "|".join(sorted((r"[\s_-]".join(parts) for parts in FORBIDDEN), key=len, reverse=True))
PATTERN = re.compile(rf"(?<![A-Za-z])(?:{WORDS})(?![A-Za-z])", re.IGNORECASE)
# File → the words that are necessary in it; the comment says why.
EXCEPTIONS: dict[str, set[str]] = {
    # asyncio calls the method connection_made.
    "deeprank/serving/http_protocol.py": {"made"},
    # Old keys and values of configs, and the tests of the messages about them.
    "deeprank/renamed_settings.py": {
        "head_start",
        "in_class_share",
        "leave_out",
        "near_share",
        "nets",
        "positive_cap",
        "rendered",
        "withheld",
    },
    "tests/cli/test_serve_command.py": {"nets"},
    "tests/pipelines/test_strict.py": {"leave_out"},
    "tests/test_renamed_settings.py": {"head_start", "leave_out"},
}

Problem = tuple[Text, Rule]


def name_problems(names: Iterable[Text]) -> Iterator[Problem]:
    """Yield the names with a forbidden word; the name of a test is a sentence, so only words forbidden anywhere count in it."""
    for name in names:
        parts = glossary.split_name(name.text)
        runs = {parts[start : start + length] for length in LENGTHS for start in range(len(parts) - length + 1)}
        rules = [IN_NAMES[run] for run in runs & IN_NAMES.keys()] + [AS_NAMES[run] for run in {parts} & AS_NAMES.keys()]
        yield from ((name, rule) for rule in rules if rule.scope == "anywhere" or parts[:1] != ("test",))


def text_problems(texts: Iterable[Text]) -> Iterator[Problem]:
    """Yield the places in texts with a word that is forbidden anywhere."""
    for text in texts:
        for match in PATTERN.finditer(text.text):
            line = text.line + text.text.count("\n", 0, match.start())
            yield Text(text.file, line, match.group()), FORBIDDEN[glossary.split_name(match.group().lower())]


@cache
def file_problems(file: Path) -> tuple[Problem, ...]:
    """Return the problems of a file: names, strings and comments of Python, all lines of other files."""
    text = file.read_text(encoding="utf-8")
    where = str(file.relative_to(PROJECT))
    if file.suffix != ".py":
        return tuple(text_problems(Text(where, number, line) for number, line in enumerate(text.splitlines(), 1)))
    problems = [*name_problems(glossary.defined_names(file)), *name_problems(glossary.option_names(file))]
    problems += name_problems(name for _, name in glossary.reported_names(file))
    if PATTERN.search(text):
        problems += [*text_problems(glossary.strings(file)), *text_problems(glossary.comments(file))]
    return tuple(problems)


def word(problem: Problem) -> str:
    """Return the word of a problem, as in EXCEPTIONS."""
    return "_".join(problem[1].parts)


def check(problems: Iterable[Problem]) -> None:
    """Fail with one line for each problem that is no exception."""
    lines = {
        f"{text.file}:{text.line}: {word((text, rule))} ({text.text.strip()}) -> use {rule.use}"
        for text, rule in problems
        if word((text, rule)) not in EXCEPTIONS.get(text.file, set())
    }
    if lines:
        pytest.fail(f"{len(lines)} forbidden words, see docs/glossary.md\n" + "\n".join(sorted(lines)), pytrace=False)


def python_files(*folders: str) -> list[Path]:
    """Return the Python files in some folders, these tests aside: they name the words that they look for."""
    return [file for file in project_files(*folders, suffixes=[".py"]) if file.parent != Path(__file__).parent]


def text_files(*names: str) -> list[Path]:
    """Return the other files in some folders; the glossary lists the words, and the changelog names what was renamed."""
    suffixes = [".md", ".yaml", ".yml", ".toml", ".j2", ".html", ".js", ".css", "Dockerfile", "Makefile"]
    return [file for file in project_files(*names, suffixes=suffixes) if file not in (GLOSSARY, PROJECT / "CHANGELOG.md")]


@pytest.mark.parametrize("folder", ["deeprank", "steps", "pipelines", "benchmarks", "tests"])
def test_python_code_has_no_forbidden_word(folder: str) -> None:
    check(problem for file in python_files(folder) for problem in file_problems(file))


@pytest.mark.parametrize("folder", ["docs", "configs", "docker", "benchmarks", "deeprank"])
def test_text_files_have_no_forbidden_word(folder: str) -> None:
    check(problem for file in text_files(folder) for problem in file_problems(file))


def test_files_at_the_top_have_no_forbidden_word() -> None:
    names = ["README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "mkdocs.yml"]
    check(problem for file in text_files(*names) for problem in file_problems(file))


def test_config_keys_have_no_forbidden_word() -> None:
    files = [file for file in project_files("configs", suffixes=[".yaml"]) if file.parent.name == "configs"]
    check(problem for file in files for problem in name_problems(glossary.config_keys(file)))


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_is_necessary(name: str) -> None:
    assert {word(problem) for problem in file_problems(PROJECT / name)} >= EXCEPTIONS[name]


def test_the_glossary_lists_words_of_each_scope() -> None:
    assert {rule.scope for rule in RULES} == {"anywhere", "in_name", "as_name"}
    assert {("net",), ("photograph",), ("leave", "out"), ("neighbour",)} <= set(FORBIDDEN)


@pytest.mark.parametrize(
    ("text", "message"),
    [("the net", r"a\.py:2: net \(net\) -> use model"), ("leave-out", r"leave_out \(leave-out\) -> use exclude"), ("a planet", None)],
)
def test_forbidden_words_in_text_are_reported(text: str, message: str | None) -> None:
    problems = list(text_problems([Text("a.py", 1, f"first line\n{text}")]))
    if message is None:
        assert not problems
    else:
        with pytest.raises(pytest.fail.Exception, match=message):
            check(problems)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("found_rows", ["found"]),
        ("PeerNet", ["net"]),
        ("of", ["of"]),
        ("_of", ["of"]),
        ("max.leaveOut", ["leave_out"]),
        ("test_found", []),
        ("test_net", ["net"]),
        ("settings_of", []),
        ("foundation", []),
    ],
)
def test_forbidden_words_in_names_are_reported(name: str, words: list[str]) -> None:
    assert [word(problem) for problem in name_problems([Text("a.py", 1, name)])] == words

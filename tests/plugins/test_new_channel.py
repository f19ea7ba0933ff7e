"""What `convsdk new-channel` writes: a distribution whose tests pass at once."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from convsdk.cli import main
from convsdk.cli.authoring import written

EXAMPLE = Path(__file__).parents[2] / "plugins" / "convsdk-example"
LEFTOVERS = {"__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".tox"}


def run(*arguments):
    """Give what the command line answers."""
    return CliRunner().invoke(main, ["new-channel", *map(str, arguments)])


def contents(folder):
    """Give the text of each file in a folder, by its path in it."""
    files = [file for file in folder.rglob("*") if file.is_file() and not LEFTOVERS & set(file.parts)]
    return {file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8") for file in files}


def test_example_is_what_the_command_writes(tmp_path):
    """The example under `plugins/` is the command's output: renew it with `convsdk new-channel example`."""
    answer = run("example", "--into", tmp_path, "--json")

    assert json.loads(answer.output)["written"] == str(tmp_path / "convsdk-example")
    assert contents(tmp_path / "convsdk-example") == contents(EXAMPLE)


def test_tests_of_a_new_channel_pass_at_once(tmp_path):
    """A channel of two words has names that fit wherever they stand, and keeps every law of the kit."""
    run("rocket_chat", "--into", tmp_path)
    folder = tmp_path / "convsdk-rocket-chat"

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "RocketChatChannel" in (folder / "src/convsdk_rocket_chat/__init__.py").read_text(encoding="utf-8")


def test_new_channel_announces_itself():
    """The entry point, the module and the channel type have one name."""
    files = {path.as_posix(): text for path, text in written("line").items()}

    project = tomllib.loads(files["pyproject.toml"])["project"]

    assert (project["name"], project["entry-points"]["convsdk.plugins"]) == ("convsdk-line", {"line": "convsdk_line"})
    assert 'type = "line"' in files["src/convsdk_line/__init__.py"]
    assert not [path for path, text in files.items() if "@name@" in path + text.lower()]


@pytest.mark.parametrize("name", ["Line", "9gag", "a-b", "a__b", "a_", "../x", "class", "x" * 41, ""])
def test_name_that_is_none_is_refused(name, tmp_path):
    """A name has to fit into a module, a distribution and a configuration."""
    answer = run("--into", tmp_path, "--", name)

    assert answer.exit_code == 2
    assert "no name of a channel type" in answer.output
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_there_is_left_alone(tmp_path):
    """Nobody's work is written over."""
    mine = tmp_path / "convsdk-line"
    mine.mkdir()

    answer = run("line", "--into", tmp_path)

    assert (answer.exit_code, list(mine.iterdir())) == (2, [])
    assert "is there already" in answer.output

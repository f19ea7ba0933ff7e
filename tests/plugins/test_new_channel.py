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


def outcome_of(folder, *options):
    """Give what becomes of the tests of a distribution, run as its author does."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_example_is_what_the_command_writes(tmp_path):
    """The example under `plugins/` is the command's output: renew it with `convsdk new-channel example`."""
    answer = run("example", "--into", tmp_path, "--json")

    assert json.loads(answer.output)["written"] == str(tmp_path / "convsdk-example")
    assert contents(tmp_path / "convsdk-example") == contents(EXAMPLE)


def test_tests_of_a_new_channel_pass_at_once(tmp_path):
    """A channel of two words has names that fit wherever they stand, and keeps every law of the kit."""
    run("rocket_chat", "--into", tmp_path)
    folder = tmp_path / "convsdk-rocket-chat"

    done = outcome_of(folder)

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "RocketChatChannel" in (folder / "src/convsdk_rocket_chat/__init__.py").read_text(encoding="utf-8")


def test_warnings_of_other_plugins_of_pytest_fail_nothing(tmp_path):
    """What else is installed beside an author's pytest may warn as it likes."""
    run("line", "--into", tmp_path)
    folder = tmp_path / "convsdk-line"
    loud = "import warnings\n\n\ndef pytest_runtest_setup():\n    warnings.warn('old', DeprecationWarning)\n"
    (folder / "loud.py").write_text(loud, encoding="utf-8")

    done = outcome_of(folder, "-p", "loud", "-k", "names_its_writer or external_ids")

    assert done.returncode == 0, done.stdout
    assert "DeprecationWarning: old" in done.stdout


def test_warnings_of_the_adapter_and_its_tests_fail(tmp_path):
    """What an author's own code warns of is a failure, in the package and in the tests."""
    run("line", "--into", tmp_path)
    folder = tmp_path / "convsdk-line"
    warn = "import warnings\n\n\ndef {}():\n    warnings.warn('mine', DeprecationWarning)\n"
    (folder / "src/convsdk_line/old.py").write_text(warn.format("warn"), encoding="utf-8")
    call = "\n\ndef test_package():\n    from convsdk_line.old import warn\n\n    warn()\n"
    (folder / "tests/test_old.py").write_text(warn.format("test_own") + call, encoding="utf-8")

    done = outcome_of(folder, "tests/test_old.py")

    assert "2 failed" in done.stdout


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

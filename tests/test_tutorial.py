"""The tutorial's platform and channel: what its readers write is written here, tested and run."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from convsdk.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
FILE = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE_S = 30
SECRETS = {"PIGEON_SECRET": "pigeon-signs-with-this", "PIGEON_TOKEN": "pigeon-lets-in-with-this"}


@pytest.fixture
def folder(tmp_path):
    """Give the folder of a reader who has come to the end of the page."""
    CliRunner().invoke(main, ["new-channel", "pigeon", "--into", str(tmp_path)])
    (tmp_path / "convsdk-pigeon/src/convsdk_pigeon/golden/several.json").unlink()
    for name, text in FILE.findall(PAGE.read_text(encoding="utf-8")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def environment(folder):
    """Give the environment in which the channel is installed: its metadata stands where pip would put it."""
    source = folder / "convsdk-pigeon/src"
    metadata = source / "convsdk_pigeon-1.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: convsdk-pigeon\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[convsdk.plugins]\npigeon = convsdk_pigeon\n"
        "[convsdk.contracts]\npigeon = convsdk_pigeon.contract:PigeonContract\n"
    )
    return os.environ | SECRETS | {"PYTHONPATH": str(source)}


@contextmanager
def running(*command, folder):
    """Run a program until the block ends."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()


def asked(*arguments, folder):
    """Give the lines that a command of convsdk answers."""
    command = [program(), *arguments, "--json"]
    answer = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in answer.stdout.splitlines()]


def commands():
    """Give the commands with which the page ends, as a reader types them: look, answer, look again."""
    last = CONSOLE.findall(PAGE.read_text(encoding="utf-8"))[-1]
    return [shlex.split(line)[2:] for line in last.splitlines() if line.startswith("$ convsdk ")]


def numbered(command, conversation):
    """Give a command of the page with the number that a reader has found below ID."""
    return [str(conversation["id"]) if word == "NUMBER" else word for word in command]


def take_numbers(folder):
    """Let the reader's store number something else first: what is not numbered by itself does not begin at 1."""
    asked("consent", "email:ben@shop.example", "marketing", "--record", "granted", "--by", "kim", folder=folder)


def program():
    """Give the console script beside the interpreter."""
    found = shutil.which("convsdk", path=Path(sys.executable).parent)
    assert found, "the console script is not installed beside the interpreter"
    return found


def free_ports():
    """Give two ports that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return str(one.getsockname()[1]), str(other.getsockname()[1])


def is_up(url):
    """Say whether somebody answers at `url`."""
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def wait_for(look):
    """Give what `look` gives, once it is something."""
    end = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end, look
        time.sleep(0.2)
    return found


def test_every_python_block_is_a_file():
    """Nothing on the page is left out of the tests below."""
    text = PAGE.read_text(encoding="utf-8")

    assert text.count("```python") == sum(name.endswith(".py") for name, _ in FILE.findall(text))


def test_channel_of_the_tutorial_keeps_every_law(folder):
    """The tests that the page ends with pass."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder / "convsdk-pigeon",
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_channel_of_the_tutorial_is_gold(folder):
    """The scorecard that the page asks for at last."""
    (card,) = asked("check-channel", "pigeon", "--require", "gold", folder=folder)

    assert (card["distribution"], card["level"]) == ("convsdk-pigeon", "gold")


def test_ann_asks_and_is_answered(folder):
    """By the page's own programs and commands, a message comes in, and the answer goes out and is delivered."""
    look, answer, look_again = commands()
    take_numbers(folder)
    port, api = free_ports()
    with (folder / "convsdk.toml").open("a") as configuration:
        configuration.write(f'api = "http://127.0.0.1:{api}"\n')
    webhook = f"http://127.0.0.1:{port}/channels/pigeons"
    serve = running(program(), "serve", "--port", port, folder=folder)

    with serve, running(sys.executable, "pigeon.py", webhook, api, folder=folder) as pigeon:
        wait_for(lambda: is_up(f"http://127.0.0.1:{port}/health"))
        pigeon.stdin.write("ann: Is the blue one in stock?\n")
        pigeon.stdin.flush()
        (conversation,) = wait_for(lambda: asked(*look, folder=folder))
        asked(*numbered(answer, conversation), folder=folder)
        told = pigeon.stdout.readline()
        again = numbered(look_again, conversation)
        wait_for(lambda: [one for one in asked(*again, folder=folder) if one.get("status") == "delivered"])

    assert told == "-> ann: It is. Shall I keep one for you?\n"

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from receiver import Receiver

from convsdk.cli import main
from convsdk.hub import Hub
from convsdk.testing.builders import hint

PATIENCE_S = 20
SECRET = "whsec_" + "A" * 32
CONFIG = """
store = "sqlite:///shop.db"
[workspaces.default]
[workspaces.other]
[webhooks.crm]
url = "{url}"
secrets = [{{ env = "CRM" }}]
events = ["contact.*"]
start = "beginning"
[webhooks.other]
url = "{url}/of/another"
workspace = "other"
secrets = [{{ env = "CRM" }}]
start = "beginning"
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Give a folder with a store in it, which has one contact, and work there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRM", SECRET)
    hub = Hub("sqlite:///shop.db")
    hub.resolve(hint("1", email="ann@shop.example"))
    hub.close()
    return tmp_path


@contextmanager
def working(folder, *arguments):
    """Run `convsdk worker` as a user does; give the process and what it says first."""
    command = [sys.executable, "-c", "from convsdk.cli import main; main()", "worker", "--json", *arguments]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ) as process,
    ):
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_tells_its_workspace_s_webhooks_until_a_signal(shop, number):
    """A contact is told to the webhook that wants it, signed; a signal ends the program well."""
    with Receiver() as receiver:
        (shop / "convsdk.toml").write_text(CONFIG.format(url=receiver.url), encoding="utf-8")
        with working(shop) as (process, said):
            (delivery,) = receiver.wait_for(1)
            process.send_signal(number)
            status = process.wait(PATIENCE_S)
        again = CliRunner().invoke(main, ["events", "--workspace", "default", "--again", "webhook/crm"])
        with working(shop):
            deliveries = receiver.wait_for(2)

    assert said == {"default": ["webhook/crm"], "other": ["webhook/other"]}
    assert delivery.read(SECRET)["type"] == "contact.created"
    assert status == 0
    assert again.exit_code == 0
    assert {one.headers["webhook-id"] for one in deliveries} == {delivery.headers["webhook-id"]}
    assert not any(word in (shop / "log").read_text() for word in (SECRET, receiver.url))


def test_nobody_to_tell_is_told(shop):
    """A worker without targets is a mistake."""
    result = CliRunner().invoke(main, ["worker"])

    assert result.exit_code == 2
    assert "there is nobody to tell: add [webhooks.NAME], or install a plugin" in result.stderr

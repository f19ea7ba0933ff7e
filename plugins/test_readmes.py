"""What the READMEs of the adapters show is so."""

import contextlib
import io
import re
import tomllib
from pathlib import Path

import pytest

from convsdk.config import load_config
from convsdk.plugins import load_plugins

READMES = sorted(Path(__file__).parent.glob("*/README.md"))
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

each_readme = pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)


def blocks(readme, language):
    """Give the blocks in a language."""
    found = FENCE.findall(readme.read_text(encoding="utf-8"))
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, name, text in found if name == language]


@each_readme
def test_configuration_of_a_readme_is_accepted(readme, tmp_path):
    """The channel that a README configures has no mistake, once its secrets are where it says."""
    (block,) = blocks(readme, "toml")
    (tmp_path / "convsdk.toml").write_text(block, encoding="utf-8")
    digits = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw9"

    exported = dict.fromkeys(re.findall(r'env = "(\w+)"', block), "chosen-for-the-webhook-of-the-shop")
    config = load_config(
        tmp_path / "convsdk.toml",
        load_plugins(),
        environ={name: digits if name == "SHOP_BOT_TOKEN" else secret for name, secret in exported.items()},
    )

    assert list(config.channels) == list(tomllib.loads(block)["channels"])
    assert set(exported) <= set(re.findall(r"export (\w+)=", readme.read_text(encoding="utf-8")))


@each_readme
def test_python_of_a_readme_prints_what_it_shows(readme):
    """Every Python block runs, and prints the text block after it."""
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        for block in blocks(readme, "python"):
            exec(compile(block, readme, "exec"), {})  # noqa: S102  (running the project's own documentation)

    assert printed.getvalue() == "".join(blocks(readme, "text"))


@each_readme
def test_readme_tells_every_setting(readme):
    """Each setting of the channel is in the table."""
    channel = load_plugins().channel_types[readme.parent.name.removeprefix("convsdk-")]

    told = readme.read_text(encoding="utf-8")

    assert [one.name for one in channel.settings.__attrs_attrs__ if f"`{one.name}`" not in told] == []

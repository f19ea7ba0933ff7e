"""The adapters under `plugins/` are distributions as anybody's, which know of convsdk what everybody may know."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADAPTERS = sorted(ROOT.glob("plugins/convsdk-*"))
PUBLIC = ("convsdk.core.", "convsdk.errors.", "convsdk.hookspecs.", "convsdk.testing.")

each_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)


def project(adapter):
    """Give what the distribution says of itself."""
    return tomllib.loads((adapter / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def imports(adapter):
    """Give the dotted names that its source imports."""
    for file in adapter.glob("src/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_are_adapters():
    """The tests below have something to look at."""
    assert ADAPTERS


@each_adapter
def test_adapter_is_a_distribution_of_its_own(adapter):
    """It depends on convsdk, announces its module as an entry point, and has a README and types."""
    told = project(adapter)
    module = adapter.name.replace("-", "_")

    assert told["name"] == adapter.name
    assert any(one.startswith("convsdk>=") for one in told["dependencies"])
    assert list(told["entry-points"]["convsdk.plugins"].values()) == [module]
    assert (adapter / "README.md").is_file()
    assert (adapter / "src" / module / "py.typed").is_file()


@each_adapter
def test_adapter_has_the_projects_licence(adapter):
    """What the project gives away is under its licence; who begins with the example chooses one."""
    if adapter.name == "convsdk-example":
        assert not (adapter / "LICENSE").exists()
        return
    assert (adapter / "LICENSE").read_text(encoding="utf-8") == (ROOT / "LICENSE").read_text(encoding="utf-8")


@each_adapter
def test_adapter_knows_what_everybody_may_know(adapter):
    """It imports nothing of convsdk but what authors of channels are offered."""
    of_convsdk = {name for name in imports(adapter) if name.startswith("convsdk.")}

    assert of_convsdk
    assert {name for name in of_convsdk if not name.startswith(PUBLIC)} == set()


@each_adapter
def test_adapter_is_part_of_the_checks(adapter):
    """Tox installs it, and checks its types."""
    checks = (ROOT / "tox.ini").read_text(encoding="utf-8")

    assert f"./plugins/{adapter.name}\n" in checks
    assert f"plugins/{adapter.name}/src" in checks


@each_adapter
def test_adapter_is_short(adapter):
    """The contract carries the rest: one that needs more than 350 lines in all shows what the contract lacks."""
    lines = [line for file in adapter.glob("src/**/*.py") for line in file.read_text(encoding="utf-8").splitlines()]

    assert 0 < len(lines) <= 350

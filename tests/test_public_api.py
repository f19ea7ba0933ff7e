"""Pins public names and signatures in `public_api.txt`, which `python tests/test_public_api.py` writes anew."""

import ast
import difflib
import importlib
import inspect
import pkgutil
from pathlib import Path

import convsdk.channels
import convsdk.core

PINNED = Path(__file__).with_name("public_api.txt")
ALONE = (
    "archive",
    "backfill",
    "config",
    "delivery",
    "errors",
    "hookspecs",
    "hub",
    "inbox",
    "permissions",
    "ingest",
    "listening",
    "outbox",
    "plugins",
    "redaction",
    "rejects",
    "reread",
    "scenarios",
    "store",
    "testing",
    "web",
    "webhook",
)


def public_modules():
    """Give every module that users import from."""
    parts = [pkgutil.iter_modules(one.__path__, f"{one.__name__}.") for one in (convsdk.core, convsdk.channels)]
    names = ["convsdk", *(f"convsdk.{name}" for name in ALONE), *(module.name for part in parts for module in part)]
    return [importlib.import_module(name) for name in names]


def public_names(module):
    """Give what a module offers: its `__all__`, or else what it defines itself."""
    targets = []
    for node in ast.parse(inspect.getsource(module)).body:
        targets += node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
    names = [getattr(target, "id", getattr(target, "name", "_")) for target in targets]
    return getattr(module, "__all__", [name for name in names if name[0] != "_"])


def parameters(function):
    """Give name, kind and default of each parameter. Annotations are mypy's, and each Python prints them otherwise."""
    given = inspect.signature(function).parameters.values()
    unstable = [one for one in given if " at 0x" in repr(one.default) or "NOTHING" in repr(one.default)]
    shown = [one.replace(annotation=one.empty, default=... if one in unstable else one.default) for one in given]
    return str(inspect.Signature(shown)).replace("=Ellipsis", "=...")


def lines(name, value):
    """Give a line for a public object; for a class, one for each base and public member too."""
    function = getattr(value, "__func__", value)
    if not inspect.isclass(value):
        return [name + parameters(function) if inspect.isroutine(function) else name]
    is_made_by_us = str(getattr(value.__init__, "__module__", "")).startswith("convsdk")
    fields = inspect.signature(value).parameters if is_made_by_us else {}
    # What a private base offers is the class's own; what a public one offers has lines of its own. The laws of a
    # contract are no names to call: each release may bring more of them.
    owners = [one for one in value.__mro__ if one is value or one.__name__[0] == "_"]
    members = {key: one for owner in owners for key, one in vars(owner).items() if not key.startswith(("_", "test_"))}
    found = [f"{name} of {base.__name__}" for base in value.__bases__ if base is not object]
    found += [name + parameters(value)] if is_made_by_us else [name]
    for key, member in members.items():
        if key not in fields:
            found += [f"{name}.{key}"] if inspect.isclass(member) else lines(f"{name}.{key}", member)
    return found


def public_api():
    """Give all lines, sorted, as one text."""
    modules = public_modules()
    found = [
        line for one in modules for key in public_names(one) for line in lines(f"{one.__name__}.{key}", vars(one)[key])
    ]
    return "\n".join(sorted(found)) + "\n"


def test_public_names_are_those_that_are_pinned():
    """A name or a signature that users rely on changes on purpose only."""
    pinned, now = PINNED.read_text("utf-8").splitlines(), public_api().splitlines()

    changes = "\n".join(difflib.unified_diff(pinned, now, "pinned", "now", n=0, lineterm=""))

    assert not changes, (
        f"a public name or signature changed:\n{changes}\n"
        "where that is meant: run 'python tests/test_public_api.py' and add a changelog fragment"
    )


if __name__ == "__main__":
    PINNED.write_text(public_api(), "utf-8")

"""Who may import whom. CONTRIBUTING.md draws the same table for people."""

import ast
import sys
from pathlib import Path

import pytest

import convsdk

ROOT = Path(convsdk.__file__).parent
PURE = {"attr", "attrs", "email_validator", "phonenumbers", "idna", "convsdk.core", "convsdk.errors"}
CHANNEL = {
    "attr",
    "attrs",
    "msgspec",
    "jwt",
    "dkim",
    "cryptography",
    "aiosmtplib",
    "structlog",
    "httpx",
    "imap_tools",
    "convsdk.core",
    "convsdk.errors",
}
ONLY = {
    "core": PURE,
    "errors": PURE,
    "channels": CHANNEL | {"convsdk.hookspecs"},
    "store": {"attr", "attrs", "msgspec", "psycopg", "psycopg_pool", "convsdk.core", "convsdk.errors", "convsdk.store"},
}
NEVER = {
    "hub": {"convsdk.channels", "convsdk.web"},
    "desk": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "inbox": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "permissions": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "presence": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "replies": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "reports": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "automatic": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "delivery": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "outcomes": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "backfill": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "ingest": {"convsdk.channels", "convsdk.web"},
    "patience": {"convsdk"},
    "fetch": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "archive": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "reread": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "redaction": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "rejects": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "mailserver": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "memory": {"convsdk.channels", "convsdk.web", "convsdk.store", "convsdk.hub"},
    "outbox": {"convsdk.channels", "convsdk.web"},
    "profiles": {"convsdk.channels", "convsdk.web"},
    "lease": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "listening": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "webhook": {"convsdk.channels", "convsdk.web", "convsdk.store"},
    "web": {"convsdk.channels", "convsdk.store", "convsdk.outbox"},
}


def _is_in(module, packages):
    return any(module == package or module.startswith(package + ".") for package in packages)


def _imported(tree, module):
    """Give (name, node) for each import, relative ones made absolute; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield from ((f"{origin}.{alias.name}", node) for alias in node.names)


def _for_typing(tree):
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


def forbidden_imports(source, path):
    """List the imports in `source` that a file at `path` (relative to the package) may not have."""
    # An __init__ keeps its name here, so that one level of a relative import is one part for it as well.
    module = ".".join(("convsdk", *Path(path).with_suffix("").parts))
    _, part, *inside = module.split(".")
    tree = ast.parse(source)
    typing_only = _for_typing(tree)
    own = {f"convsdk.channels.{inside[0]}"} if part == "channels" else set()
    if part == "channels" and path.endswith("/contract.py"):
        own.add("convsdk.testing")

    def allows(name, node):
        if path in {"core/ports.py", "core/answers.py"} and node in typing_only and _is_in(name, {"httpx"}):
            return True
        if _is_in(name, {"pluggy"}):
            return part in {"hookspecs", "plugins"}
        if part not in ONLY:
            return not _is_in(name, NEVER.get(part, ()))
        return name.partition(".")[0] in sys.stdlib_module_names or _is_in(name, ONLY[part] | own)

    return [name for name, node in _imported(tree, module) if not allows(name, node)]


@pytest.mark.parametrize("path", sorted(file.relative_to(ROOT).as_posix() for file in ROOT.rglob("*.py")))
def test_module_keeps_to_the_import_table(path):
    """No module imports what its part of the package may not know."""
    assert forbidden_imports((ROOT / path).read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/resolver.py", "import sqlite3, structlog"),
        ("core/resolver.py", "from convsdk import hub"),
        ("core/resolver.py", "from .. import store"),
        ("core/model.py", "if TYPE_CHECKING:\n    import httpx"),
        ("core/ports.py", "import httpx"),
        ("errors.py", "import msgspec"),
        ("channels/chat/__init__.py", "from convsdk.channels.email import parse"),
        ("channels/chat/__init__.py", "from ..email import parse"),
        ("channels/chat/parse.py", "def late():\n    from convsdk.store import open_store"),
        ("channels/chat/parse.py", "from convsdk.hub import Hub"),
        ("channels/chat/parse.py", "from convsdk.testing import request"),
        ("hub.py", "from convsdk.channels.chat import parse"),
        ("ingest.py", "from . import channels"),
        ("mailserver.py", "from convsdk.channels.email import EmailChannel"),
        ("outbox.py", "import convsdk.web.app"),
        ("lease.py", "from convsdk.store import open_store"),
        ("listening.py", "from convsdk.channels.email import EmailChannel"),
        ("webhook.py", "from convsdk.store import open_store"),
        ("store/sqlite.py", "from convsdk.hub import Hub"),
        ("rejects.py", "from convsdk.hub import Hub"),
        ("archive.py", "from convsdk.hub import Hub"),
        ("redaction.py", "from convsdk.hub import Hub"),
        ("web/app.py", "from convsdk.store import open_store"),
        ("config.py", "import pluggy"),
    ],
)
def test_forbidden_import_is_reported(path, source):
    """Each rule of the import table reports a module that breaks it."""
    assert len(forbidden_imports(source, path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/ports.py", "if TYPE_CHECKING:\n    import httpx"),
        ("core/identifiers.py", "import phonenumbers\nfrom .model import Identifier"),
        ("channels/chat/__init__.py", "from . import parse\nfrom convsdk.hookspecs import hookimpl"),
        ("hub.py", "from convsdk.store import open_store"),
        ("plugins.py", "import pluggy"),
        ("web/webhooks.py", "from convsdk.ingest import Ingest"),
        ("channels/chat/contract.py", "from convsdk.testing import ChannelContract"),
    ],
)
def test_permitted_import_is_not_reported(path, source):
    """What the import table permits passes."""
    assert forbidden_imports(source, path) == []

"""Builds the documentation site, which is read without a network: `tox -e docs` says how."""

import re
from enum import Enum
from importlib.metadata import version as version_of

project = "convsdk"
author = "The convsdk authors"
copyright = "the convsdk authors; MIT licence"  # noqa: A001  (Sphinx calls it so)
version = release = version_of("convsdk")

# The source is the whole project: a link to CONTRIBUTING.md or to a plugin works here as in the repository.
root_doc = "docs/index"
include_patterns = ["docs/**", "CONTRIBUTING.md", "benchmarks/README.md", "plugins/*/README.md"]
exclude_patterns = ["**/.*", "**/node_modules", "build", "dist", "site"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "description"
python_display_short_literal_types = True

html_theme = "furo"
html_title = "convsdk"
html_static_path = ["_static"]
html_extra_path = ["_root"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))")


def setup(app):
    """Read docstrings as they are written: `code` stands between single backticks, and an `s` may follow it.

    The members of an enum say what they are by their names, and are shown without a docstring.
    """
    app.connect("autodoc-process-docstring", _mark_code)
    app.connect("autodoc-skip-member", _keep_members_of_enums)


def _mark_code(_app, _what, _name, _obj, _options, lines):
    lines[:] = [_CODE.sub(lambda found: f"``{found[1]}``" + "\\ " * bool(found[2]), line) for line in lines]


def _keep_members_of_enums(_app, _what, _name, obj, _skip, _options):
    return False if isinstance(obj, Enum) else None

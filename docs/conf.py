"""How Sphinx builds the documentation."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION_FILE = ROOT / "lib" / "greentaps" / "_version.py"

project = "greentaps"
author = "greentaps contributors"
copyright = "2026, greentaps contributors"
release = version = runpy.run_path(str(VERSION_FILE))["__version__"]

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build", "_conformance.rst"]  # the latter is part of conformance.rst
html_theme = "alabaster"
html_static_path = ["_static"]  # custom.css in it is alabaster's own name
html_theme_options = {
    "description": "Transport services in blocking style",
    "page_width": "72em",
    "body_max_width": "none",
    "sidebar_width": "16em",
}

# A name in single backticks is an object of ours where there is one, as in the docstrings.
default_role = "py:obj"
rst_prolog = ".. py:currentmodule:: greentaps\n"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what the types are for


def plain_signature(app, what, name, obj, options, signature, returns):
    """Without the places that older systems have for arguments, and what nobody wants to read."""
    if signature is not None:
        signature = signature.replace("_first=None, _second=None, _third=None, /, ", "")
        signature = re.sub("=<(object object|factory)>", "=...", signature)
        signature = re.sub(r"(x{9})x{99,}", r"\1...", signature)
    return signature, returns


def setup(app):
    app.connect("autodoc-process-signature", plain_signature)

"""How Sphinx builds the documentation."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION_FILE = ROOT / "lib" / "greentaps" / "_version.py"

project = "greentaps"
author = "greentaps contributors"
copyright = "2026, greentaps contributors"
release = version = runpy.run_path(str(VERSION_FILE))["__version__"]

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Transport services in blocking style"}

autodoc_member_order = "bysource"
autodoc_typehints = "description"

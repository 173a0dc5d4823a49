"""Sphinx configuration of the site; docs/site/build.py gathers the pages."""

import usdrl_hub

project, author = "usdrl_hub", "usdrl_hub developers"
copyright = "usdrl_hub developers, Apache-2.0"
version = release = usdrl_hub.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"usdrl_hub {version}"
root_doc = "index"
exclude_patterns = ["files"]
# Without the host's time zone and language, a build is the same everywhere.
language = "en"

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

# Names in docstrings are links.
default_role = "py:obj"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
copybutton_exclude = ".linenos, .gp, .go"

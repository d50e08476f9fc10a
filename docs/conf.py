"""Configuration of the documentation site: `make docs` builds it with Sphinx, warnings as errors."""

from importlib import metadata

project = "mgc"
author = "the mgc developers"
copyright = "2026, the mgc developers"
version = release = metadata.version("mgc-music")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["_build"]
smartquotes = False  # options begin with two hyphens
html_theme = "furo"
html_title = f"mgc {release}"
html_static_path: list[str] = []
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# Shell sessions and outputs stand in indented blocks without a language.
highlight_language = "none"
# Pages of the repository may link to its files, which the site does not hold.
suppress_warnings = ["myst.header"]

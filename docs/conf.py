"""The configuration of the documentation site: `make docs` builds it with Sphinx, into docs/_build/html."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "extensions"))

from docstrings import documented  # noqa: E402

project = "regard"
author = "the regard authors"
copyright = author
release = re.search(r'^__version__ = "(.+)"', (DOCS.parent / "src/regard/__init__.py").read_text("utf-8"), re.M)[1]
version = release

# Two names that differ in case alone would be one file on some systems.
autosummary_filename_map = {
    "regard.Attention": "regard.Attention-class",
    "regard.atlas.Difference": "regard.atlas.Difference-class",
    "regard.attribution.Agreement": "regard.attribution.Agreement-class",
    "regard.attribution.Knockout": "regard.attribution.Knockout-class",
}
for page in (DOCS / "api" / "generated").glob("*.rst"):  # pages of names that are no longer listed
    if page.stem.removesuffix("-class") not in documented():
        page.unlink()

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "myst_parser",
    "docstrings",
    "notebooks",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
nitpicky = False

# Pages are Markdown that GitHub shows as well; headings have the anchors that GitHub gives them.
myst_heading_anchors = 4
myst_enable_extensions = []

# The API: a page for each object, from its docstring.
autosummary_generate = True
autosummary_imported_members = True
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
smartquotes = False  # docstrings have code in them
maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"

# Their objects.inv are kept in the tree, so that a build asks nothing of any network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "inventories/python.inv"),
    "numpy": ("https://numpy.org/doc/stable/", "inventories/numpy.inv"),
    "torch": ("https://docs.pytorch.org/docs/stable/", "inventories/torch.inv"),
    "transformers": ("https://huggingface.co/docs/transformers/", "inventories/transformers.inv"),
}

highlight_options = {"python": {"stripnl": True}}  # the blank line at the end of a session
html_theme = "pydata_sphinx_theme"
html_title = f"regard {release}"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["_static"]
html_sidebars = {"start": [], "figures": [], "compared": []}  # pages without pages below them
html_css_files = ["site.css"]
html_theme_options = {
    "logo": {"text": "regard"},
    "navbar_end": [*(["playground"] if "playground" in tags else []), "theme-switcher"],  # `make docs`
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

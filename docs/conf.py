"""Sphinx's settings; docs/build.py lays out the sources and starts it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import ziamath
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))  # the package beside docs/, installed or not
os.environ["HF_HUB_OFFLINE"] = "1"

import gumlab  # noqa: E402

project = "gumlab"
release = version = gumlab.__version__
author = "the authors of gumlab"
html_title = f"gumlab {release}"

extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = [".doctrees", "notebooks/download"]
default_role = "py:obj"  # `select` in a docstring is a link where it can be, else code

nb_execution_mode = "off"  # the notebooks come with the outputs that are stored in them
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the section Parameters says the types
autosummary_generate = False
numpydoc_show_class_members = False
maximum_signature_line_length = 80

html_theme = "furo"
html_static_path = ["_static", str(Path(ziamath.__file__).parent / "fonts")]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_use_index = html_domain_indices = False  # the search finds more
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"  # drawn by the browser itself: no script, no network
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0060a8", "color-brand-content": "#0060a8"},
    "dark_css_variables": {"color-brand-primary": "#7cc0ff", "color-brand-content": "#7cc0ff"},
}


def inline_formula(writer: Any, node: nodes.math) -> None:
    """Write a formula in a line of text as MathML."""
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def displayed_formula(writer: Any, node: nodes.math_block) -> None:
    """Write a formula of its own as MathML."""
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def escape_bars(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list) -> None:
    """In our docstrings |cosine| is a magnitude; reStructuredText would substitute it."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = re.sub(r"(`+[^`]*`+)|\|", lambda part: part[1] or r"\|", line)


def setup(app: Sphinx) -> None:
    """Register the formulas, and what docstrings need."""
    app.connect("autodoc-process-docstring", escape_bars, priority=400)  # before numpydoc
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))

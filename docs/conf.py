"""Settings of the documentation: sphinx-build -W -b html docs docs/_build/html."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number

import scld

project = "scld"
author = "The scld authors"
copyright = author
version = release = scld.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
root_doc = "index"
exclude_patterns = ["_build"]
templates_path: list[str] = []

# Markdown
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"  # without MathJax, so that formulas need no network

# tutorials: executed when their code changed, any error ends the build
nb_execution_mode = "cache"
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # of tables that a cell prints

# docstrings
autodoc_typehints = "none"  # signatures would be longer than what they describe
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
default_role = "py:obj"

html_theme = "sphinx_book_theme"
html_title = "scld"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["llms.txt"]
html_show_sourcelink = False
html_theme_options = {"show_navbar_depth": 1, "show_toc_level": 2}


def _inline_formula(translator: Any, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _formula(translator: Any, node: nodes.math_block) -> None:
    number = get_node_equation_number(translator, node) if node["number"] else ""
    label = f'<span class="eqno">({number})</span>' if number else ""
    formula = tex2mathml(node.astext(), as_block=True)
    translator.body.append(f'<div style="margin: 1em 0">{label}{formula}</div>')
    raise nodes.SkipNode


def _links_from_the_root(_: Sphinx, path: Path, docname: str, text: list[str]) -> None:
    """Links between files of the root, which the site has as pages of their own."""
    for name in ("CONTRIBUTING", "CHANGELOG"):
        text[0] = text[0].replace(f"]({name}.md", f"](docs/{name.lower()}.md")


def setup(app: Sphinx) -> None:
    """Formulas as MathML, links of included files, and the folder in which tutorials work."""
    app.connect("include-read", _links_from_the_root)
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_formula, None))
    work = Path(app.outdir).parent / "work"  # what one tutorial saves and another loads
    work.mkdir(parents=True, exist_ok=True)
    os.environ["SCLD_TUTORIALS"] = str(work)  # inherited by the kernels
    os.environ.setdefault("OMP_NUM_THREADS", "1")

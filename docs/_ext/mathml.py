"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", NAMESPACE)


def to_mathml(formula: str, *, block: bool = False) -> str:
    r"""A formula as docutils translates it, but ``\hat y_i`` with its index beside, not below."""
    translated = tex2mathml(formula, as_block=block).replace(
        "&ApplyFunction;", "\N{FUNCTION APPLICATION}"
    )
    tree = ElementTree.fromstring(translated)
    for element in tree.iter(f"{{{NAMESPACE}}}munderover"):
        base, index, accent = element
        if accent.get("stretchy") == "false":
            element.tag = f"{{{NAMESPACE}}}msub"
            element[:] = [ElementTree.Element(f"{{{NAMESPACE}}}mover", accent="true"), index]
            element[0][:] = [base, accent]
    return ElementTree.tostring(tree, encoding="unicode")


def visit_math(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula, one on lines of its own as a block; say where one cannot be read."""
    block = isinstance(node, nodes.math_block)
    try:
        formula = to_mathml(node.astext(), block=block)
    except MathError as error:
        logger.warning("%s: %s", error, node.astext(), location=node)
        raise nodes.SkipNode from error
    translator.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer, for ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Single backticks link to the page of a public name, wherever in the package it stands."""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import ExtensionMetadata


def link(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.TextElement
) -> nodes.reference | None:
    """The page of `fit` in the class at hand, of `MAML` in any room; none: it stays code."""
    if node["reftype"] != "name":
        return None
    target = node["reftarget"]
    first = target.partition(".")[0]
    pages = env.domains.python_domain.objects
    paths = [f"{node['py:module']}.{node['py:class']}.{target}", f"{node['py:module']}.{target}"]
    anywhere = [page[: -len(first)] + target for page in pages if page.endswith(f".{first}")]
    if first.islower():  # a method's name says little outside its class
        anywhere = []
    for path in [*paths, target, f"ehrmeta.{target}", *anywhere]:
        if path in pages:
            entry = pages[path]
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, shown)
    return None


def leave_words(app: Sphinx, doctree: nodes.document) -> None:
    """A word in a parameter's type, such as low in (low, high), is no name to be looked up."""
    for node in list(doctree.findall(pending_xref)):
        word = node["reftarget"]
        if node["reftype"] == "class" and word.islower() and "." not in word:
            node.replace_self(node.children)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the role, for ``default_role = "name"``."""
    app.add_role("name", PyXRefRole())
    app.connect("doctree-read", leave_words)
    app.connect("missing-reference", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

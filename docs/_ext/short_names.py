"""References to Python objects by their last name: packages re-export what their modules define."""

from typing import Any, Final

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

_DASH: Final = " \N{EN DASH} "


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.reference | None:
    """Find the one documented object of that name; None: there is none, or several."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].rpartition(".")[2]
    objects = env.domains.python_domain.objects
    found = {path for path in objects if path.rpartition(".")[2] == name}
    if len(found) != 1 or not name[:1].isupper():
        return None
    (path,) = found
    entry = objects[path]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, path)


def _free_of_types(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep napoleon from taking what stands before a colon for a type: annotations say those."""
    if what in ("property", "attribute") and lines:
        lines[0] = lines[0].replace(": ", _DASH, 1)
    for index, line in enumerate(lines[1:], 1):
        if lines[index - 1].strip() == "Returns:":
            lines[index] = line.replace(": ", _DASH, 1)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-docstring", _free_of_types, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

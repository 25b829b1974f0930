"""Links to other pages as plain reStructuredText has them, ``.. _page.rst: page.rst``.

They lead somewhere both in a repository browser and here, and Sphinx checks them like its own.
"""

import posixpath
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class PlainLinks(SphinxTransform):
    """Turns links to ``page.rst`` and ``page.rst#section`` into references to that document."""

    # After docutils has told references where they lead.
    default_priority = 700

    def apply(self, **kwargs: Any) -> None:
        """Replace the links of one document."""
        for link in list(self.document.findall(nodes.reference)):
            path, _, _ = link.get("refuri", "").partition("#")
            if ":" in path or not path.endswith(".rst"):
                continue
            target = posixpath.normpath(path).removesuffix(".rst")
            if target == "../CHANGELOG":
                target = "changelog"
            # A title in backquotes says more than the file's name does.
            named = link.astext().endswith(".rst")
            link.replace_self(
                addnodes.pending_xref(
                    "",
                    nodes.inline("", target if named else link.astext(), classes=["doc"]),
                    refdomain="std",
                    reftype="doc",
                    reftarget=f"/{target}",
                    refdoc=self.env.docname,
                    refexplicit=not named,
                    refwarn=True,
                )
            )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_transform(PlainLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

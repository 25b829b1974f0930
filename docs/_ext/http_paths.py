"""The paths of the admin endpoint, from the operations that describe themselves."""

from docutils import nodes
from error_tables import list_table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from odingw.web.openapi_admin import admin_operations


class AdminPaths(SphinxDirective):
    """A table of methods and paths, and what they do."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = [("Path", "What it does")]
        for (path, method), operation in sorted(admin_operations().items()):
            name = path if method == "GET" else f"{method} {path}"
            rows.append((f"``{name}``", operation["summary"]))
        return self.parse_text_to_nodes(list_table("40 60", rows))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("admin-paths", AdminPaths)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

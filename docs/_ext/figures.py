"""The benchmark's figures, from the one file that has them."""

from pathlib import Path
from typing import Final

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS: Final = Path(__file__).parents[2] / "benchmarks" / "RESULTS.rst"


class MeasuredFigures(SphinxDirective):
    """What the last published run of the benchmarks measured."""

    def run(self) -> list[nodes.Node]:
        """Return the file's sections; a source tree without it says how to get figures."""
        self.env.note_dependency(str(RESULTS))
        if not RESULTS.exists():
            return self.parse_text_to_nodes(
                "Run ``make bench``: this source tree holds no results."
            )
        return self.parse_text_to_nodes(RESULTS.read_text("utf-8"), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("measured-figures", MeasuredFigures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Puts SVG images into HTML pages as they are, so that they take on the page's colours."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


class InlineSvg(SphinxPostTransform):
    """Replaces images of local SVG files by the files' text."""

    default_priority = 200
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Replace the images of one document."""
        for image in list(self.document.findall(nodes.image)):
            uri = image["uri"]
            if not uri.endswith(".svg") or "://" in uri:
                continue
            text = (Path(self.env.srcdir) / uri).read_text("utf-8").partition("?>")
            svg = text[2] or text[0]
            image.replace_self(
                nodes.raw("", f'<div class="diagram" tabindex="0">{svg}</div>', format="html")
            )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_post_transform(InlineSvg)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

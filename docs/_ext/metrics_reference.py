"""The metrics, from the registry of a gateway that is put together and not started."""

from collections.abc import Iterator
from typing import Any, Final

from docutils import nodes
from prometheus_client.metrics import MetricWrapperBase
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from twisted.internet.testing import MemoryReactorClock

from odingw.options import Options
from odingw.tap import GatewayService

MASTER_KEY: Final = "bm90IGEgc2VjcmV0"
"""Given so that none is made and kept; nothing is signed here."""


def families() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yield name (as scraped), type, text and labels of each metric."""
    options = Options()
    options.parseOptions(["--state", "memory:", "--masterkey", MASTER_KEY])
    reactor = MemoryReactorClock()
    service = GatewayService(options, options.load(), None, reactor)
    service.startService()
    # prometheus_client has no public way to a metric's label names before it has a series.
    registry: Any = service._gateway.metrics.registry
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.collect()
            labels = collector._labelnames
            yield _scraped(family.name, family.type), family.type, family.documentation, labels
            continue
        for family in collector.collect():
            labels = family._labelnames
            yield _scraped(family.name, family.type), family.type, family.documentation, labels


def _scraped(name: str, kind: str) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
    return name if name.endswith(suffix) else name + suffix


class MetricsReference(SphinxDirective):
    """All metrics, each as something that other pages can refer to."""

    def run(self) -> list[nodes.Node]:
        """Return their descriptions."""
        lines: list[str] = []
        for name, kind, text, labels in sorted(families()):
            by = f", by {', '.join(f'``{label}``' for label in labels)}" if labels else ""
            lines += [f".. metric:: {name}", "", f"   {text}", "", f"   *{kind}*{by}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_object_type("metric", "metric", objname="metric")
    app.add_directive("metrics-reference", MetricsReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

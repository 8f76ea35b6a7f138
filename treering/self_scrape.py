"""Treering's own metrics, written into itself, so that the first query of a new store has an answer."""

from dataclasses import dataclass

import numpy as np

from treering.node import Node
from tsdb.model.labels import METRIC_NAME, Labels
from tsdb.model.write import WriteBatch


@dataclass(frozen=True, slots=True)
class SelfScrape:
    """A scrape of the node's registry, as job `treering`."""

    node: Node

    def run(self) -> None:
        """Push one sample of every own metric, and `up`."""
        identity = {"job": "treering", "instance": self.node.config.listen}
        rows, values = [Labels.of({METRIC_NAME: "up", **identity})], [1.0]
        for family in self.node.telemetry.registry.collect():
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    rows.append(Labels.of({**sample.labels, METRIC_NAME: sample.name, **identity}))
                    values.append(float(sample.value))
        n = len(rows)
        times = np.full(n, self.node.now_ms(), np.int64)
        batch = WriteBatch.of(rows, row=np.arange(n, dtype=np.int32), t_ms=times, values=np.array(values))
        self.node.push(self.node.config.self_tenant, batch)

"""The page about clusters says what the benchmark computes."""

from benchmarks.scale import cluster_table
from tests.processes import ROOT


def test_the_table_of_clusters_is_the_computed_one() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert "\n".join(cluster_table()) in page

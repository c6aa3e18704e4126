"""Triplets as Parquet."""

import pandas as pd

from deeprank.triplets.sampling import Triplets
from steps.artifacts.base import Artifact

TRIPLETS, FINGERPRINT = "triplets.parquet", "catalogue.txt"


class TripletsArtifact(Artifact):
    """Triplets as Parquet."""

    def write(self, triplets: Triplets) -> None:
        """Write the triplets and their catalogue's fingerprint."""
        triplets.frame.to_parquet(self.folder / TRIPLETS, index=False)
        (self.folder / FINGERPRINT).write_text(triplets.fingerprint)

    def open(self) -> Triplets:
        """Return the triplets."""
        return Triplets(pd.read_parquet(self.folder / TRIPLETS), (self.folder / FINGERPRINT).read_text())

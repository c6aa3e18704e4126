"""Triplets as Parquet."""

from pathlib import Path

import pandas as pd

from deeprank.triplets.sampling import Triplets
from steps.artifacts.base import Artifact


class TripletsArtifact(Artifact):
    """Triplets as Parquet."""

    @classmethod
    def write(cls, folder: Path, triplets: Triplets) -> "TripletsArtifact":
        """Write the triplets and their catalogue's fingerprint."""
        triplets.frame.to_parquet(folder / "triplets.parquet", index=False)
        (folder / "catalogue.txt").write_text(triplets.fingerprint)
        return cls(folder)

    def open(self) -> Triplets:
        """Return the triplets."""
        return Triplets(pd.read_parquet(self.folder / "triplets.parquet"), (self.folder / "catalogue.txt").read_text())

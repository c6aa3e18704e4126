"""Refresh of the champion's index: new images are added and lost ones removed, without training."""

import shutil
import tempfile
from pathlib import Path

import pandas as pd

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.evaluation.gate import Decision
from deeprank.models.embedding_table import catalogue_embeddings
from deeprank.registry.champion import is_provisional_champion
from deeprank.registry.register import Registered, RegisterSettings, register
from deeprank.registry.releases import Release, find_version, open_version
from deeprank.reporting import Reporter
from deeprank.search.index import Index
from deeprank.search.index_update import update_index

# A larger share of missing images is taken for an error, such as a disk that is not mounted.
MAX_MISSING_SHARE = 0.5


def refresh_champion(name: str, catalogue: Catalogue, reporter: Reporter) -> Registered | None:
    """Register the champion again with an index of the catalogue's current images.

    The model, its evaluation and its clusters stay the same, and the new version becomes champion without the gate. Reports
    index.added, .removed, .churn and .centroid_drift, and the note index.rebuild: why to build clusters and index anew.

    Args:
        name: name of the registered model.
        catalogue: its current version.
        reporter: receives the results.

    Returns:
        The new version; None if the index already has the catalogue's current images.

    Raises:
        ModelError: there is no champion, it cannot be loaded, or more than half of its images are missing from the catalogue.

    """
    champion = find_version(name, "champion")
    if champion is None:
        raise ModelError(f"{name} has no champion to refresh; `deeprank run` makes one")
    release = open_version(champion)
    index = release.index
    if index.manifest["catalogue"]["fingerprint"] == catalogue.fingerprint:
        reporter.note("index.rebuild", index.churn.rebuild_reason or "not needed")
        return None
    require_most_images(index.rows["id"], catalogue, f"in the index of {name} version {champion.version}", "the index was not changed")
    with tempfile.TemporaryDirectory() as folder:
        changed = _copy_with_new_index(release, index, Path(folder), catalogue)
        added, removed = changed.churn.added - index.churn.added, changed.churn.removed - index.churn.removed
        metrics = {"added": added, "removed": removed, "churn": changed.churn.share, "centroid_drift": changed.churn.centroid_drift}
        for key, value in metrics.items():
            reporter.metric(f"index.{key}", value)
        reporter.note("index.rebuild", changed.churn.rebuild_reason or "not needed")
        reason = f"the model of version {champion.version}, with {added:,} images added to its index and {removed:,} removed"
        if is_provisional_champion(name):
            reason += "; the champion stays provisional until a release can be tested and is not worse"
        card = (release.folder / "gate" / "model_card.md").read_text()
        if champion.tags.get("gate.state") == "refreshed":
            card = card.partition("\n\n")[2]  # without the first line of the refresh before this one
        return register(Path(folder), RegisterSettings(name=name), Decision("refreshed", True, reason), catalogue, f"{reason}.\n\n{card}")


def require_most_images(ids: pd.Series, catalogue: Catalogue, source: str, consequence: str) -> None:
    """Refuse a catalogue without most of some images: its folder may be the wrong one, or its disk not mounted.

    Args:
        ids: of the images.
        catalogue: its current version.
        source: for the message, what the images are from.
        consequence: for the message, what was not done.

    Raises:
        ModelError: more than half of the images are missing from the catalogue.

    """
    missing = int((~ids.isin(catalogue.frame["id"])).sum())
    if missing > MAX_MISSING_SHARE * len(ids):
        raise ModelError(
            f"{missing:,} of the {len(ids):,} images {source} are missing from the catalogue {catalogue.uri}, "
            f"version {catalogue.version}; {consequence}. Check the source folder; "
            "if the images were removed on purpose, train once manually: `deeprank run`"
        )


def _copy_with_new_index(release: Release, index: Index, folder: Path, catalogue: Catalogue) -> Index:
    """Write the release's bundle and evaluation, and its index changed to the catalogue's images, to a folder."""
    for name in ("bundle", "evaluation"):
        shutil.copytree(release.folder / name, folder / name)
    bundle = release.bundle
    return update_index(
        index, folder / "index", catalogue, lambda rows: catalogue_embeddings(bundle, catalogue, rows, "embedding new images")
    )

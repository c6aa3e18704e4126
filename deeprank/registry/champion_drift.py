"""Drift of the catalogue against the images that the champion was trained on."""

from mlflow import MlflowClient

from deeprank.data.catalogue import Catalogue
from deeprank.monitoring.drift import measure_drift
from deeprank.registry.releases import find_version, open_version
from deeprank.reporting import Reporter


def measure_champion_drift(catalogue: Catalogue, name: str, reporter: Reporter) -> None:
    """Report how far the catalogue's new images lie from those that the champion was trained on.

    Args:
        catalogue: its current version.
        name: name of the registered model.
        reporter: receives the note drift.champion, and what `measure_drift` reports.

    Raises:
        ModelError: the champion cannot be loaded.

    """
    champion = find_version(name, "champion")
    reporter.note("drift.champion", str(champion.version) if champion else "none yet")
    if champion is None:
        reporter.metric("drift.new_images", 0)
        return
    release = open_version(champion)
    # A refreshed release indexes images that its model was not trained on; its first version does not.
    same_model = [
        version
        for version in MlflowClient().search_model_versions(f"name = '{name}'")
        if version.tags.get("model.weights_hash") == champion.tags["model.weights_hash"]
    ]
    first = min(same_model, key=lambda version: int(version.version)).tags
    trained_on = Catalogue(first["catalogue.uri"], int(first["catalogue.version"])).frame["id"].tolist()
    measure_drift(catalogue, release.bundle, release.index, reporter, trained_on)

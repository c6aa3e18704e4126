"""Who is the champion, and who was when, why and by which run: the alias and its history."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from mlflow import MlflowClient

from deeprank.data.catalogue import Catalogue
from deeprank.errors import ModelError
from deeprank.monitoring.drift import measure_drift
from deeprank.registry.releases import Release, fetch, find
from deeprank.reporting import Reporter

# One tag of the registered model a move, numbered, so that none ever replaces another.
TAG = "champion.move."
By = Literal["gate", "hand", "rollback", "refresh"]


@dataclass(frozen=True)
class Move:
    """The alias `champion` went to a version: when (UTC), from which one, by whom, why, and which run made the version."""

    at: str
    version: int
    before: int | None
    by: By
    reason: str
    run_id: str


def history(name: str) -> list[Move]:
    """Return every move of a model's champion, oldest first; none where there is no such model."""
    client = MlflowClient()
    found = client.search_registered_models(f"name = '{name}'")
    tags = found[0].tags if found else {}
    return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(TAG)]


def set_champion(name: str, version: int, by: By, reason: str) -> Move:
    """Make a version the champion and write down when and why."""
    client = MlflowClient()
    before = find(name, "champion")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    run_id = client.get_model_version(name, str(version)).run_id or ""
    move = Move(at, version, int(before.version) if before else None, by, reason, run_id)
    # First the record: an alias that moved unrecorded could not be rolled back.
    client.set_registered_model_tag(name, f"{TAG}{len(history(name)):06d}", json.dumps(asdict(move)))
    client.set_registered_model_alias(name, "champion", str(version))
    return move


def promote(name: str, version: int, reason: str, anyway: bool = False) -> Move:
    """Make a version the champion by hand.

    Raises:
        ModelError: there is no such version; it is the champion already; or the gate held it and `anyway` is not given.

    """
    wanted, champion = find(name, str(version)), find(name, "champion")
    if wanted is None:
        raise ModelError(f"{name} has no version {version}; `deeprank models --name {name}` lists them")
    if champion and champion.version == wanted.version:
        raise ModelError(f"version {version} of {name} is the champion already")
    state = wanted.tags.get("gate.state", "")
    if state in ("held", "invalid") and not anyway:
        raise ModelError(
            f"the gate judged version {version} of {name} {state}: {wanted.tags.get('gate.reason', '')}; --anyway promotes it all the same"
        )
    return set_champion(name, version, "hand", reason)


def rollback(name: str, reason: str) -> Move:
    """Give the title back to the champion before the present one; versions that only refreshed its index are the same champion.

    Raises:
        ModelError: there is no champion, none before it, or that version is gone.

    """
    champion = find(name, "champion")
    if champion is None:
        raise ModelError(f"{name} has no champion to roll back; `deeprank models --name {name}` lists its versions")
    # A rollback is no rise of its own: rolling back twice goes back two champions. A refresh is none either: its net is the same.
    rises: dict[int | None, Move] = {move.version: move for move in history(name) if move.by != "rollback"}
    rise = rises.get(int(champion.version))
    while rise and rise.by == "refresh":
        rise = rises.get(rise.before)
    before = rise.before if rise else None
    if before is None:
        raise ModelError(f"version {champion.version} is the first champion of {name}: there is none before it")
    if find(name, str(before)) is None:
        raise ModelError(f"version {before} of {name}, the champion before, is no longer in the registry")
    return set_champion(name, before, "rollback", reason)


def champion_drift(catalogue: Catalogue, name: str, reporter: Reporter) -> None:
    """Report how far the catalogue's images that the champion does not know lie from those that it was trained on."""
    champion = find(name, "champion")
    reporter.note("drift.champion", str(champion.version) if champion else "none yet")
    if champion is None:
        reporter.metric("drift.new_images", 0)
        return
    release = Release(fetch(champion))
    # A refreshed release holds images in its index that its model never saw: those of its first version are what it knows.
    same = [
        version
        for version in MlflowClient().search_model_versions(f"name = '{name}'")
        if version.tags.get("weights") == champion.tags["weights"]
    ]
    first = min(same, key=lambda version: int(version.version)).tags
    made_from = Catalogue(first["catalogue.uri"], int(first["catalogue.version"])).frame["id"].tolist()
    measure_drift(catalogue, release.bundle, release.index, reporter, made_from)

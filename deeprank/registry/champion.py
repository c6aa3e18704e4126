"""The alias `champion` of a registered model: how it moves, and the history of its moves."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from mlflow import MlflowClient

from deeprank.errors import ModelError
from deeprank.registry.releases import find_version

# Each move is a tag of the registered model; the numbers keep moves from overwriting each other.
MOVE_TAG_PREFIX = "champion.move."
MovedBy = Literal["gate", "manual", "rollback", "refresh"]


@dataclass(frozen=True)
class ChampionMove:
    """A move of the alias `champion` to another version.

    Attributes:
        at: when it moved (UTC, ISO 8601).
        version: version that became the champion.
        previous_version: champion before it; None if there was none.
        moved_by: what moved it: the gate, a person, a rollback, or a refresh of the index.
        reason: why it moved.
        run_id: MLflow run that registered the version.

    """

    at: str
    version: int
    previous_version: int | None
    moved_by: MovedBy
    reason: str
    run_id: str


def champion_history(name: str) -> list[ChampionMove]:
    """Return all moves of a model's champion, oldest first; an empty list if there is no such model.

    Raises:
        ModelError: a move was recorded by an older version of deeprank.

    """
    try:
        return [ChampionMove(**json.loads(value)) for value in _move_tags(name)]
    except TypeError:
        raise ModelError(
            f"the champion history of {name} was recorded by an older version of deeprank; register under another name (register.name)"
        ) from None


def _move_tags(name: str) -> list[str]:
    models = MlflowClient().search_registered_models(f"name = '{name}'")
    tags = models[0].tags if models else {}
    return [tags[key] for key in sorted(tags) if key.startswith(MOVE_TAG_PREFIX)]


def set_champion(name: str, version: int, moved_by: MovedBy, reason: str) -> ChampionMove:
    """Make a version the champion and record the move."""
    client = MlflowClient()
    previous = find_version(name, "champion")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    run_id = client.get_model_version(name, str(version)).run_id or ""
    move = ChampionMove(at, version, int(previous.version) if previous else None, moved_by, reason, run_id)
    # The record comes first: an alias that moved without a record could not be rolled back.
    client.set_registered_model_tag(name, f"{MOVE_TAG_PREFIX}{len(_move_tags(name)):06d}", json.dumps(asdict(move)))
    client.set_registered_model_alias(name, "champion", str(version))
    return move


def is_provisional_champion(name: str) -> bool:
    """Return whether a model's champion became champion as provisional; versions that only refreshed an index count as that one."""
    version = find_version(name, "champion")
    while version is not None and version.tags.get("gate.state") == "refreshed":
        previous_versions = {move.version: move.previous_version for move in champion_history(name) if move.moved_by == "refresh"}
        previous = previous_versions.get(int(version.version))
        version = find_version(name, str(previous)) if previous else None
    return version is not None and version.tags.get("gate.state") == "provisional"


def promote(name: str, version: int, reason: str, force: bool = False) -> ChampionMove:
    """Make a version the champion manually.

    Args:
        name: name of the registered model.
        version: version to promote.
        reason: why, for the champion's history.
        force: promote the version even if the gate did not pass it.

    Raises:
        ModelError: there is no such version, it is already the champion, or the gate did not pass it and `force` is not set.

    """
    candidate, champion = find_version(name, str(version)), find_version(name, "champion")
    if candidate is None:
        raise ModelError(f"{name} has no version {version}; `deeprank models --name {name}` lists its versions")
    if champion and champion.version == candidate.version:
        raise ModelError(f"version {version} of {name} is already the champion")
    state = candidate.tags.get("gate.state", "")
    if state in ("held", "invalid") and not force:
        gate_reason = candidate.tags.get("gate.reason", "")
        raise ModelError(f"the gate did not pass version {version} of {name} ({state}: {gate_reason}); --force promotes it anyway")
    return set_champion(name, version, "manual", reason)


def rollback(name: str, reason: str) -> ChampionMove:
    """Make the previous champion the champion again; versions that only refreshed an index count as the same champion.

    Raises:
        ModelError: there is no champion, there is no champion before it, or that version is no longer in the registry.

    """
    champion = find_version(name, "champion")
    if champion is None:
        raise ModelError(f"{name} has no champion to roll back; `deeprank models --name {name}` lists its versions")
    # Moves by rollback are left out, so that two rollbacks in a row go back two champions.
    promotions: dict[int | None, ChampionMove] = {move.version: move for move in champion_history(name) if move.moved_by != "rollback"}
    promotion = promotions.get(int(champion.version))
    # A refreshed version has the same model as the version before it.
    while promotion and promotion.moved_by == "refresh":
        promotion = promotions.get(promotion.previous_version)
    previous = promotion.previous_version if promotion else None
    if previous is None:
        raise ModelError(f"version {champion.version} is the first champion of {name}: there is no champion before it")
    if find_version(name, str(previous)) is None:
        raise ModelError(f"version {previous} of {name}, the previous champion, is no longer in the registry")
    return set_champion(name, previous, "rollback", reason)

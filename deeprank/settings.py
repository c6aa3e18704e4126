"""The base of every room's settings: strict, frozen, and therefore safe to put into a cache key."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings that refuse unknown keys and cannot change after they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

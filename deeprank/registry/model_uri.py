"""The URI of a registered model, as MLflow writes it: models:/NAME/VERSION or models:/NAME@ALIAS."""

from dataclasses import dataclass

SCHEME = "models:/"


@dataclass(frozen=True)
class ModelUri:
    """A registered model and one of its versions, given by number or by alias.

    Attributes:
        name: name of the registered model.
        version_or_alias: version number or alias; empty if the URI names neither.

    """

    name: str
    version_or_alias: str

    @classmethod
    def parse(cls, text: str) -> "ModelUri | None":
        """Return the parts of a models:/ URI; None for any other text, such as a folder's path."""
        if not text.startswith(SCHEME):
            return None
        name, _, version_or_alias = text.removeprefix(SCHEME).replace("@", "/").partition("/")
        return cls(name, version_or_alias)

    @property
    def alias(self) -> str:
        """The alias; empty if the URI names a version."""
        return "" if self.version_or_alias.isdigit() else self.version_or_alias

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}{'@' if self.alias else '/'}{self.version_or_alias}"

"""How ZenML stores artifacts: as folders, with figures and pages for its dashboard."""

from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.utils import io_utils

from steps.artifacts.base import RECORD, SKIPPED, Artifact, new_folder


class FolderMaterializer(BaseMaterializer):
    """Stores any artifact of `steps.artifacts`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Artifact,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: Artifact) -> None:
        """Copy the artifact's folder into the artifact store."""
        io_utils.copy_dir(str(data.folder), self.uri, overwrite=True)

    def load(self, data_type: type[Artifact]) -> Artifact:
        """Return the artifact; on a local store its folder is the stored folder itself, elsewhere a new one for what is downloaded."""
        if Path(self.uri).is_dir():
            return data_type(Path(self.uri))
        return data_type(new_folder(), self.uri)

    def save_visualizations(self, data: Artifact) -> dict[str, VisualizationType]:
        """Return the record's figures and the HTML pages, which the dashboard shows."""
        figures = {f"{self.uri}/{RECORD}/{file.name}": VisualizationType.IMAGE for file in data.record.figures.values()}
        pages = [file for file in [*data.folder.glob("*.html"), *data.record.attached] if file.suffix == ".html"]
        return figures | {f"{self.uri}/{file.relative_to(data.folder)}": VisualizationType.HTML for file in pages}

    def extract_metadata(self, data: Artifact) -> dict[str, Any]:
        """Return the record's last metric values and its notes."""
        record = data.record
        return {point.name: point.value for point in record.points} | record.notes

    def compute_content_hash(self, data: Artifact) -> str:
        """Return the hash that decides whether the next step is a cache hit."""
        return SKIPPED if data.skipped else data.content_hash()

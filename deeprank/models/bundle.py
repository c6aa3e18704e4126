"""Model bundle: a folder with config.json, model.safetensors and preprocessing.json, and no pickle."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from deeprank.checksums import hash_file, read_manifest, write_manifest
from deeprank.errors import ModelError
from deeprank.models.embedding_model import Embedder, ModelSettings, create_model
from deeprank.models.preprocessing import Preprocessing

FORMAT = 5


@dataclass(frozen=True)
class Bundle:
    """A trained model in a folder."""

    folder: Path

    @classmethod
    def save(
        cls, folder: Path, model: Embedder, model_settings: ModelSettings, preprocessing: Preprocessing, facts: dict[str, str]
    ) -> "Bundle":
        """Write a model to a folder.

        Args:
            folder: created if it does not exist.
            model: whose weights are written.
            model_settings: of the model; they name its initial weights.
            preprocessing: of the images that the model embeds.
            facts: about the training, kept in config.json.

        """
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        (folder / "preprocessing.json").write_text(preprocessing.model_dump_json(indent=1))
        config = {
            "format": FORMAT,
            "model": model_settings.model_dump() | {"weights": "none"},
            "initial_model": model_settings.model_dump(),
            "embedding_dim": model.embedding_dim,
            "checksums": {name: hash_file(folder / name) for name in ("model.safetensors", "preprocessing.json")},
            "facts": facts,
        }
        write_manifest(folder / "config.json", config)
        return cls(folder)

    @cached_property
    def config(self) -> dict[str, object]:
        """The parsed config.json."""
        keys = {"model", "initial_model", "checksums", "facts"}
        return read_manifest(self.folder / "config.json", "is no model bundle", FORMAT, keys, "train again")

    @property
    def facts(self) -> dict[str, str]:
        """Facts about the training: data, losses, epochs, seed, precision, initial weights."""
        facts = self.config["facts"]
        assert isinstance(facts, dict)
        return facts

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights file, which identifies the model."""
        checksums = self.config["checksums"]
        assert isinstance(checksums, dict)
        return str(checksums["model.safetensors"])

    def load(self) -> tuple[Embedder, Preprocessing]:
        """Return the model, in evaluation mode, and its preprocessing.

        Raises:
            ModelError: a file is missing, damaged, or of another format.

        """
        checksums = self.config["checksums"]
        assert isinstance(checksums, dict)
        for name, checksum in checksums.items():
            file = self.folder / name
            if not file.exists():
                raise ModelError(f"{file} is missing from the model bundle")
            if hash_file(file) != checksum:
                raise ModelError(f"{file} is damaged: its checksum differs from the one in config.json; restore it or train again")
        try:
            model = create_model(ModelSettings.model_validate(self.config["model"]))
            model.load_state_dict(load_file(self.folder / "model.safetensors"))
            preprocessing = Preprocessing.model_validate_json((self.folder / "preprocessing.json").read_text())
        except (ValidationError, SafetensorError, RuntimeError) as error:
            raise ModelError(f"{self.folder}: the bundle does not fit this version of deeprank: {str(error)[:300]}") from error
        return model.eval(), preprocessing

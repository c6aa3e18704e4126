"""Fixtures that many tests use: synthetic images, their catalogue and triplets, and a small untrained model."""

import os
import shutil
import tempfile
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from deeprank.data.catalogue import Catalogue
from deeprank.data.ingest import IngestSettings, SplitShares, ingest
from deeprank.data.synthetic import write_synthetic
from deeprank.models.bundle import Bundle
from deeprank.models.embedding_model import EmbeddingModel, ModelSettings
from deeprank.models.inference import embed_catalogue
from deeprank.models.preprocessing import Preprocessing
from deeprank.triplets.sampling import SampleSettings, Triplets, sample_triplets

SIZE = 64
# timm's smallest ConvNet of the EfficientNet family.
TINY = ModelSettings(backbone="test_efficientnet", weights="none", embedding_dim=16, frozen_stages=0, pretrained_share=0)


# A temporary state folder for each test worker, instead of the one of the project. It must be set before test modules are imported:
# importing ZenML creates its database, and two workers would create the same one at the same time.
STATE = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Point every library to the temporary state folder."""
    folder = config.stash[STATE] = Path(tempfile.mkdtemp(prefix="deeprank-tests-"))
    os.environ.pop("DEEPRANK_DATA", None)
    os.environ |= {
        # Two test workers share two cores: subprocesses with more threads take twice the CPU time.
        "OMP_NUM_THREADS": "1",
        "DEEPRANK_HOME": str(folder),
        "ZENML_CONFIG_PATH": str(folder / "zenml"),
        "ZENML_REPOSITORY_PATH": str(folder),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the temporary state folder."""
    shutil.rmtree(config.stash[STATE], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, start the e2e tests first: they take as long as all others together."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def state(pytestconfig: pytest.Config) -> Path:
    """Return the temporary state folder; computations use one thread, which is fastest for tiny models."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    return pytestconfig.stash[STATE]


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six products of two kinds, eight images of each."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder, classes=6, images=8, size=SIZE)
    return folder


@pytest.fixture(scope="session")
def catalogue(synthetic_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The catalogue of the synthetic folder; every split is large enough for triplets."""
    settings = IngestSettings(shares=SplitShares(train=0.5, val=0.25, test=0.25))
    return ingest(synthetic_folder, settings, str(tmp_path_factory.mktemp("catalogues")), progress=False)[0]


@pytest.fixture(scope="session")
def triplets(catalogue: Catalogue) -> Triplets:
    return sample_triplets(catalogue.frame, SampleSettings(), catalogue.fingerprint)


@pytest.fixture(scope="session")
def model_settings() -> ModelSettings:
    return TINY


def save_untrained(folder: Path, seed: int, model_settings: ModelSettings = TINY) -> Bundle:
    """Write a bundle with the random weights of a seed."""
    torch.manual_seed(seed)
    return Bundle.save(folder, EmbeddingModel(model_settings), model_settings, Preprocessing(size=SIZE), {"catalogue": "none"})


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An untrained model; tests must not write into its folder."""
    return save_untrained(tmp_path_factory.mktemp("bundle"), seed=0)


@pytest.fixture(scope="session")
def embeddings(bundle: Bundle, catalogue: Catalogue) -> np.ndarray:
    """The embeddings of all images of the catalogue."""
    model, preprocessing = bundle.load()
    return embed_catalogue(model, preprocessing, catalogue, np.arange(len(catalogue.frame)))

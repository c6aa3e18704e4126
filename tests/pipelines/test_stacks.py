"""The stack files have the format of `zenml stack import`, and ZenML's own models accept every value. Nothing is run."""

from pathlib import Path

import pytest
import yaml
import zenml
from zenml.artifact_stores.local_artifact_store import LocalArtifactStoreFlavor
from zenml.container_registries.default_container_registry import DefaultContainerRegistryFlavor
from zenml.enums import StackComponentType
from zenml.image_builders.local_image_builder import LocalImageBuilderFlavor
from zenml.integrations.kubeflow.flavors import KubeflowOrchestratorFlavor
from zenml.integrations.kubernetes.flavors import KubernetesOrchestratorFlavor
from zenml.integrations.mlflow.flavors import MLFlowExperimentTrackerFlavor, MLFlowModelRegistryFlavor
from zenml.integrations.s3.flavors import S3ArtifactStoreFlavor
from zenml.orchestrators.local.local_orchestrator import LocalOrchestratorFlavor

from deeprank.home import PROJECT

STACKS = sorted((PROJECT / "configs" / "stacks").glob("*.yaml"))
FLAVORS = {
    (flavor.type, flavor.name): flavor
    for flavor in (
        LocalOrchestratorFlavor(),
        KubernetesOrchestratorFlavor(),
        KubeflowOrchestratorFlavor(),
        LocalArtifactStoreFlavor(),
        S3ArtifactStoreFlavor(),
        DefaultContainerRegistryFlavor(),
        LocalImageBuilderFlavor(),
        MLFlowExperimentTrackerFlavor(),
        MLFlowModelRegistryFlavor(),
    )
}


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.stem)
def test_a_stack_file_is_valid_for_zenml(file: Path) -> None:
    stack = yaml.safe_load(file.read_text())
    assert stack["zenml_version"] == zenml.__version__
    assert stack["stack_name"] == f"deeprank-{file.stem}"
    assert {"orchestrator", "artifact_store", "experiment_tracker", "model_registry"} <= set(stack["components"])
    for kind, component in stack["components"].items():
        flavor = FLAVORS[StackComponentType(kind), component["flavor"]]
        assert set(component) == {"name", "flavor", "configuration"}
        assert set(component["configuration"]) <= set(flavor.config_class.model_fields), component
        if component["flavor"] == "kubeflow":
            pytest.importorskip("kubernetes", reason="ZenML's Kubeflow settings import the kubernetes package")
        # References to secrets are resolved on the server.
        plain = {key: value.strip("{}") if isinstance(value, str) else value for key, value in component["configuration"].items()}
        flavor.config_class.model_validate(plain)


@pytest.mark.parametrize(("flavor", "schedulable"), [("local", False), ("kubernetes", True), ("kubeflow", True)])
def test_which_orchestrators_take_schedules(flavor: str, schedulable: bool) -> None:
    config = FLAVORS[StackComponentType.ORCHESTRATOR, flavor].config_class
    assert config.is_schedulable.fget(config.model_construct()) is schedulable

"""`python -m pipelines.setup`: create state folder, ZenML stack and MLflow experiment; it can be repeated."""

import os

from deeprank.home import home, record_location

STACK = "deeprank"


def main() -> None:
    """Create what is missing, and print where it is."""
    for folder in ("mlflow", "data", "work"):
        (home() / folder).mkdir(parents=True, exist_ok=True)
    record_location()
    create_experiment()
    register_stack()
    print(f"state folder {home()}, ZenML stack {STACK}, MLflow {os.environ['MLFLOW_TRACKING_URI']}")


def create_experiment() -> None:
    """Create the MLflow experiment; if the store is the state folder's, the artifacts go there too."""
    import mlflow

    from deeprank.home import default_tracking_uri
    from steps.tracking import EXPERIMENT

    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        in_state_folder = mlflow.get_tracking_uri() == default_tracking_uri()
        artifacts = (home() / "mlflow" / "artifacts").as_uri() if in_state_folder else None
        mlflow.create_experiment(EXPERIMENT, artifact_location=artifacts)


def register_stack() -> None:
    """Register orchestrator, artifact store, MLflow tracker and model registry as a ZenML stack, and activate it."""
    from zenml.client import Client
    from zenml.enums import StackComponentType as Kind

    if not Client.is_repository_directory(home()):
        Client.initialize(root=home())
    client = Client()
    client.activate_root(home())
    components = {
        Kind.ORCHESTRATOR: ("local", {}),
        Kind.ARTIFACT_STORE: ("local", {"path": str(home() / "artifacts")}),
        Kind.EXPERIMENT_TRACKER: ("mlflow", tracker_configuration()),
        Kind.MODEL_REGISTRY: ("mlflow", {}),
    }
    for kind, (flavor, configuration) in components.items():
        if client.list_stack_components(name=STACK, type=kind).total == 0:
            client.create_stack_component(name=STACK, flavor=flavor, component_type=kind, configuration=configuration)
        elif configuration:
            client.update_stack_component(STACK, kind, configuration=configuration)
    if client.list_stacks(name=STACK).total == 0:
        client.create_stack(STACK, dict.fromkeys(components, STACK))
    client.activate_stack(STACK)


def tracker_configuration() -> dict[str, str | None]:
    """Return the tracker's address from MLFLOW_TRACKING_URI, and the credentials from the environment if it is a server."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if uri.startswith(("http://", "https://")) and not (user and password):
        # ZenML refuses a server without credentials; a server that needs none ignores them.
        return {"tracking_uri": uri, "tracking_username": None, "tracking_password": None, "tracking_token": token or "none"}
    return {"tracking_uri": uri, "tracking_username": user, "tracking_password": password, "tracking_token": None}


if __name__ == "__main__":
    main()

"""`python -m pipelines.setup`: state folder, ZenML stack and MLflow experiment; repeatable."""

import os

from deeprank.home import home

STACK = "deeprank"


def main() -> None:
    """Set everything up, in the order in which it is needed, and say what there is now."""
    for folder in ("mlflow", "data", "work"):
        (home() / folder).mkdir(parents=True, exist_ok=True)
    create_experiment()
    register_stack()
    print(f"state folder {home()}, ZenML stack {STACK}, MLflow {os.environ['MLFLOW_TRACKING_URI']}")


def create_experiment() -> None:
    """Create the MLflow experiment; with a store of our own its artifacts go beside it, not into the working folder."""
    import mlflow

    from deeprank.home import default_tracking_uri
    from steps.tracking import EXPERIMENT

    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        own = mlflow.get_tracking_uri() == default_tracking_uri()
        mlflow.create_experiment(EXPERIMENT, artifact_location=(home() / "mlflow" / "artifacts").as_uri() if own else None)


def register_stack() -> None:
    """Register artifact store, orchestrator, MLflow tracker and registry as one ZenML stack, and make it the active one."""
    from zenml.client import Client
    from zenml.enums import StackComponentType as Kind

    if not Client.is_repository_directory(home()):
        Client.initialize(root=home())
    client = Client()
    client.activate_root(home())
    components = {
        Kind.ORCHESTRATOR: ("local", {}),
        Kind.ARTIFACT_STORE: ("local", {"path": str(home() / "artifacts")}),
        Kind.EXPERIMENT_TRACKER: ("mlflow", tracking()),
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


def tracking() -> dict[str, str | None]:
    """Return where the tracker's store is, and who asks where that is a server."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if uri.startswith(("http://", "https://")) and not (user and password):
        # ZenML refuses a server without credentials; one that asks for none does not look at them.
        return {"tracking_uri": uri, "tracking_username": None, "tracking_password": None, "tracking_token": token or "none"}
    return {"tracking_uri": uri, "tracking_username": user, "tracking_password": password, "tracking_token": None}


if __name__ == "__main__":
    main()

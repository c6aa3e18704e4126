"""Add new images to the champion's index and remove lost ones, without training: `zenml pipeline run pipelines.refreshing -c CONFIG`."""

from deeprank.data.ingest import IngestSettings
from deeprank.registry.register import RegisterSettings
from deeprank.serving.check_service import ServiceSettings
from pipelines.strict import strict_pipeline
from steps.ingest import ingest_step
from steps.refresh import refresh_step
from steps.service import service_step
from steps.tracking import track_cached_steps


@strict_pipeline(on_cleanup=track_cached_steps)
def refreshing(
    ingest: IngestSettings = IngestSettings(),
    register: RegisterSettings = RegisterSettings(),
    service: ServiceSettings = ServiceSettings(),
) -> None:
    """Ingest, refresh the champion's index, check the running service."""
    refreshed = refresh_step(ingest_step(ingest), register.name)
    service_step(register.name, service, after=refreshed)

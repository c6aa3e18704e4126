"""Options of the active artifact store for the tables beside the artifacts, which ZenML does not open itself."""

import json
from typing import Any

from zenml.client import Client

from deeprank.data.object_store import is_remote, set_storage_options

AZURE_FIELDS = {
    "account_name": "azure_storage_account_name",
    "account_key": "azure_storage_account_key",
    "sas_token": "azure_storage_sas_key",
    "client_id": "azure_storage_client_id",
    "client_secret": "azure_storage_client_secret",
    "tenant_id": "azure_storage_tenant_id",
}


def use_artifact_store() -> None:
    """Open everything in the bucket of the active artifact store with its credentials and endpoint, in this process."""
    store = Client().active_stack.artifact_store
    if is_remote(store.path):
        scheme, _, path = store.path.partition("://")
        set_storage_options(f"{scheme}://{path.partition('/')[0]}", _options_of(store))


def _options_of(store: Any) -> dict[str, str]:
    """Return what an artifact store's configuration, secret or service connector gives; the environment gives the rest."""
    # Each flavor has a class of its own, which is there only where its integration is installed.
    options: dict[str, Any] = {}
    if store.flavor == "s3":
        options = _s3_options(store)
    elif store.flavor == "gcp":
        credentials = store.get_credentials()
        options = {"google_service_account_key": json.dumps(credentials)} if isinstance(credentials, dict) else {}
    elif store.flavor == "azure":
        credentials = store.get_credentials()
        options = {option: getattr(credentials, field, None) for field, option in AZURE_FIELDS.items()}
    return {name: str(value) for name, value in options.items() if value}


def _s3_options(store: Any) -> dict[str, Any]:
    key, secret, token, region = store.get_credentials()
    client = store.config.client_kwargs or {}
    endpoint = client.get("endpoint_url") or ""
    return {
        "aws_access_key_id": key,
        "aws_secret_access_key": secret,
        "aws_session_token": token,
        "aws_region": region or client.get("region_name"),
        "aws_endpoint": endpoint,
        "allow_http": "true" if endpoint.startswith("http://") else "",
    }

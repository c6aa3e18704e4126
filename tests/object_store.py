"""A real S3 server on this machine, in a thread of the tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
import requests
from moto.server import ThreadedMotoServer

BUCKET = "images"
CREDENTIALS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "aws_region": "us-east-1"}


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server with the bucket BUCKET.

    Attributes:
        endpoint: its URL.

    """

    endpoint: str

    @property
    def uri(self) -> str:
        """Of the bucket."""
        return f"s3://{BUCKET}"

    @property
    def options(self) -> dict[str, str]:
        """Storage options that lead to it."""
        return CREDENTIALS | {"aws_endpoint": self.endpoint, "allow_http": "true"}

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self._client().put_object(Bucket=BUCKET, Key=key, Body=content)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._client().delete_object(Bucket=BUCKET, Key=key)

    def list_keys(self) -> list[str]:
        """Return the keys of all objects."""
        return [
            item["Key"]
            for page in self._client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            for item in page.get("Contents", [])
        ]

    def create_bucket(self) -> None:
        """Create BUCKET."""
        self._client().create_bucket(Bucket=BUCKET)

    def _client(self):
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.endpoint, **keys)


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """Run an S3 server with an empty bucket on a free port."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    store = ObjectStore("http://{}:{}".format(*server.get_host_and_port()))
    try:
        # The servers of a process share their buckets.
        requests.post(f"{store.endpoint}/moto-api/reset", timeout=10).raise_for_status()
        store.create_bucket()
        yield store
    finally:
        server.stop()

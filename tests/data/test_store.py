"""Tables on a folder and on an object store: one of several writers wins, and an error of the store is one message."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import obstore
import pyarrow as pa
import pytest

from deeprank.data import object_store
from deeprank.data.ingest import IngestSettings, ingest
from deeprank.data.object_store import as_store_error, check_store, is_remote, set_storage_options
from deeprank.data.store import append_rows, commit_rows, create_table, open_table, table_exists
from deeprank.errors import DataError, StoreError
from tests.drawing import put_all
from tests.object_store import BUCKET, CREDENTIALS, ObjectStore, running_object_store

SCHEMA = pa.schema([("writer", pa.int64()), ("after", pa.int64())])


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """An S3 server."""
    with running_object_store() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder, or a folder of an S3 bucket whose options are set."""
    if request.param == "folder":
        return str(tmp_path)
    monkeypatch.setattr(object_store, "_options", {})
    server: ObjectStore = request.getfixturevalue("server")
    uri = f"{server.uri}/{tmp_path.name}"
    set_storage_options(server.uri, server.options)
    return uri


def _rows(writer: int, after: int, count: int = 2) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pydict({"writer": [writer] * count, "after": [after] * count}, SCHEMA)


def test_rows_are_committed_at_their_version_only(root: str) -> None:
    uri = f"{root}/t.lance"
    assert commit_rows(uri, _rows(1, 0), SCHEMA, 0)
    assert commit_rows(uri, _rows(2, 2), SCHEMA, 1)
    assert not commit_rows(uri, _rows(3, 2), SCHEMA, 1)
    assert not commit_rows(uri, _rows(3, 0), SCHEMA, 0)
    assert open_table(uri).version == 2
    assert open_table(uri).to_table().to_pydict() == {"writer": [1, 1, 2, 2], "after": [0, 0, 2, 2]}


def test_rows_that_were_refused_leave_no_file(root: str, request: pytest.FixtureRequest) -> None:
    uri = f"{root}/t.lance"
    commit_rows(uri, _rows(1, 0), SCHEMA, 0)
    assert not commit_rows(uri, _rows(3, 0), SCHEMA, 0)
    keys = request.getfixturevalue("server").list_keys() if is_remote(root) else [str(file) for file in Path(uri).rglob("*")]
    assert len([key for key in keys if "t.lance/data/" in key and root.rsplit("/", maxsplit=1)[-1] in key]) == 1


def test_each_of_several_writers_follows_the_one_before(root: str) -> None:
    uri = f"{root}/t.lance"

    def write(writer: int) -> None:
        while True:
            version = open_table(uri).version if table_exists(uri) else 0
            count = open_table(uri, version).count_rows() if version else 0
            if commit_rows(uri, _rows(writer, count), SCHEMA, version):
                return

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    table = open_table(uri).to_table().to_pydict()
    assert table["after"] == [number // 2 * 2 for number in range(12)]
    assert sorted(table["writer"]) == sorted([*range(6), *range(6)])
    # The numbers of the rows are those that each writer counted on.
    assert open_table(uri).take([2, 11]).to_pydict()["after"] == [2, 10]


def test_appends_of_several_processes_are_all_kept(root: str) -> None:
    uri = f"{root}/t.lance"

    def append(writer: int) -> None:
        create_table(uri, SCHEMA)
        append_rows(uri, pa.Table.from_batches(_rows(writer, 0)))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, range(6)))
    assert sorted(set(open_table(uri).to_table()["writer"].to_pylist())) == list(range(6))


def test_only_a_missing_table_is_no_table(root: str) -> None:
    assert not table_exists(f"{root}/none.lance")
    commit_rows(f"{root}/t.lance", _rows(1, 0), SCHEMA, 0)
    with pytest.raises(DataError, match="there is no version 7 of this table"):
        open_table(f"{root}/t.lance", 7)
    with pytest.raises(DataError, match="there is no table"):
        open_table(f"{root}/none.lance")
    check_store(root)


def _closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("access", [check_store, table_exists, lambda uri: commit_rows(uri, _rows(1, 0), SCHEMA, 0)])
@pytest.mark.parametrize(
    ("bucket", "endpoint", "message"),
    [(BUCKET, _closed_port(), "no connection to the object store"), ("no-such-bucket", None, "there is no such bucket")],
    ids=["closed port", "no bucket"],
)
def test_an_error_of_the_store_is_one_message_within_seconds(
    server: ObjectStore, monkeypatch: pytest.MonkeyPatch, access, bucket: str, endpoint: str | None, message: str
) -> None:
    monkeypatch.setattr(object_store, "_options", {})
    set_storage_options(f"s3://{bucket}", server.options | ({"aws_endpoint": endpoint} if endpoint else {}))
    start = time.perf_counter()
    with pytest.raises(DataError, match=message) as error:
        access(f"s3://{bucket}/t.lance")
    assert len(str(error.value)) < 200
    assert time.perf_counter() - start < 10


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The storage options of rclone's S3 server, which checks keys and has no conditional put."""
    folder, endpoint = tmp_path_factory.mktemp("rclone"), _closed_port()
    (folder / BUCKET).mkdir()
    program = str(Path(sys.executable).with_name("rclone"))
    address = endpoint.removeprefix("http://")
    process = subprocess.Popen(
        [program, "serve", "s3", "--addr", address, "--auth-key", "key,secret", str(folder)], stderr=subprocess.DEVNULL
    )
    host, port = address.split(":")
    for _ in range(100):
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            break
        time.sleep(0.1)
    yield CREDENTIALS | {"aws_endpoint": endpoint, "allow_http": "true"}
    process.terminate()
    process.wait()


@pytest.mark.parametrize(
    ("changed", "message"),
    [({}, "no conditional put"), ({"aws_secret_access_key": "wrong"}, "access denied; check the credentials")],
    ids=["no conditional put", "wrong key"],
)
def test_a_store_that_cannot_be_used_is_refused(
    rclone: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    monkeypatch.setattr(object_store, "_options", {})
    set_storage_options(f"s3://{BUCKET}", rclone | changed)
    folder = put_all(tmp_path / "images", {"x/1.png": 1, "x/2.png": 2, "y/1.png": 3})
    monkeypatch.setattr("deeprank.data.folder.to_stored_image", None)
    with pytest.raises(StoreError, match=message):
        ingest(folder, IngestSettings(source=str(folder)), f"s3://{BUCKET}/catalogues", progress=False)


def test_options_are_those_of_the_nearest_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_options", {})
    set_storage_options("s3://one", {"aws_region": "a"})
    set_storage_options("s3://one/inner/", {"aws_region": "b"})
    options = {uri: object_store.storage_options(uri) for uri in ("s3://one/x", "s3://one/inner/x", "s3://one2/x", "/folder")}
    assert options == {"s3://one/x": {"aws_region": "a"}, "s3://one/inner/x": {"aws_region": "b"}, "s3://one2/x": {}, "/folder": {}}


def test_a_repeated_request_meets_its_own_first_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = obstore.put

    def put_twice(*arguments: object, **options: object) -> object:
        put(*arguments, **options)
        # As a store whose first answer was lost: the request is repeated, and meets its own object.
        return put(*arguments, **options)

    monkeypatch.setattr("deeprank.data.store.obstore.put", put_twice)
    uri = str(tmp_path / "t.lance")
    assert commit_rows(uri, _rows(1, 0), SCHEMA, 0)
    assert open_table(uri).count_rows() == 2


def test_an_error_of_a_folder_keeps_its_words() -> None:
    error = as_store_error("/data/x.lance", OSError("Unable to access metadata for /data/x: Permission denied"))
    assert "object store" not in str(error)
    assert "Permission denied" in str(error)

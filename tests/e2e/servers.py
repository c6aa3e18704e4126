"""The servers that pods need: ZenML's, and MLflow's on PostgreSQL, each as a process on this machine."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

START_S = 120


def free_port() -> int:
    """Return a port that no program uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], url: str, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a server until the end of the context; it is ready when its URL responds."""
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=stream, stderr=stream, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not _is_ready(url):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 15)
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2):
            return True
    except OSError:
        return False


@contextmanager
def zenml_server(folder: Path) -> Iterator[str]:
    """Run ZenML's server on SQLite, without users."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "ZENML_CONFIG_PATH": str(folder / "zenml-server"),
        "ZENML_STORE_URL": f"sqlite:///{folder / 'zenml.db'}",
        "ZENML_SERVER": "true",
        "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",
        "ZENML_ANALYTICS_OPT_IN": "false",
    }
    with running(command, f"http://127.0.0.1:{port}", folder / "zenml-server.log", environment) as url:
        yield url


@contextmanager
def mlflow_server(folder: Path, artifacts: str, environment: dict[str, str]) -> Iterator[str]:
    """Run MLflow's server on PostgreSQL; it alone has the credentials of the object store."""
    port = free_port()
    with ExitStack() as stack:
        store = stack.enter_context(_postgresql())
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", store, "--artifacts-destination", artifacts, "--serve-artifacts"]
        settings = environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        yield stack.enter_context(running(command, f"http://127.0.0.1:{port}", folder / "mlflow-server.log", settings))


@contextmanager
def _postgresql() -> Iterator[str]:
    """Run PostgreSQL with an empty database; its programs refuse the user root, who becomes the user `postgres`."""
    program = shutil.which("pg_ctl") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))), None)
    assert program, "PostgreSQL is not installed"
    # pytest makes its own folder unreadable for other users.
    data, port = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp")), free_port()
    prefix = []
    if getpass.getuser() == "root":
        shutil.chown(data, "postgres", "postgres")
        prefix = ["runuser", "-u", "postgres", "--"]

    def run(name: str, *arguments: str) -> None:
        command = [*prefix, str(Path(program).resolve().with_name(name)), "-D", str(data), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert result.returncode == 0, result.stdout + result.stderr

    try:
        run("initdb", "-U", "mlflow", "--auth=trust", "--no-sync")
        run("pg_ctl", "-o", f"-p {port} -k {data} -c listen_addresses=127.0.0.1 -c fsync=off", "-l", str(data / "log"), "-w", "start")
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
        run("pg_ctl", "-m", "fast", "-w", "stop")
    finally:
        shutil.rmtree(data, ignore_errors=True)

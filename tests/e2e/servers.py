"""The servers that pods need: ZenML's, and MLflow's on PostgreSQL, each as a process on this machine."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
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
        store = stack.enter_context(_postgresql(folder))
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", store, "--artifacts-destination", artifacts, "--serve-artifacts"]
        settings = environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        yield stack.enter_context(running(command, f"http://127.0.0.1:{port}", folder / "mlflow-server.log", settings))


@contextmanager
def _postgresql(folder: Path) -> Iterator[str]:
    """Run PostgreSQL with an empty database; its programs refuse the user root, who becomes the user `postgres`."""
    programs = shutil.which("pg_ctl") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))), None)
    assert programs, "PostgreSQL is not installed"
    bin_folder, data, port = Path(programs).resolve().parent, folder / "postgresql", free_port()
    data.mkdir()
    prefix = []
    if getpass.getuser() == "root":
        shutil.chown(data, "postgres", "postgres")
        prefix = ["runuser", "-u", "postgres", "--"]
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o001)

    def run(*command: str) -> None:
        subprocess.run([*prefix, *command], check=True, capture_output=True, cwd="/")

    run(str(bin_folder / "initdb"), "-D", str(data), "-U", "mlflow", "--auth=trust", "--no-sync")
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1 -c fsync=off"
    run(str(bin_folder / "pg_ctl"), "-D", str(data), "-o", options, "-l", str(data / "log"), "-w", "start")
    try:
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    finally:
        run(str(bin_folder / "pg_ctl"), "-D", str(data), "-m", "fast", "-w", "stop")

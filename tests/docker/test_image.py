"""The container image, built on a base image made by debootstrap, because no image registry may be reachable."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from deeprank.data.catalogue import Catalogue
from deeprank.home import PROJECT
from deeprank.models.bundle import Bundle
from deeprank.triplets.sampling import Triplets
from tests.registry_fixtures import make_release_with_canary

TOOLS = ("apt-get", "buildah", "debootstrap", "make", "podman", "runc")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root may make a base image with debootstrap"),
]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deeprank"
# Time limits for the base image, the image, and the start of a container.
BASE_TIMEOUT_S, BUILD_TIMEOUT_S, START_TIMEOUT_S = 900, 2400, 300
# The release files of a frozen package mirror expire.
APT_CONFIG = 'Acquire::Check-Valid-Until "false";\nAcquire::Check-Date "false";\n'
PODMAN_RUN = ("podman", "run", "--runtime", "runc", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096", "--network=host")
TOKEN = "as-long-as-a-token-is"


def _run(*command: str | Path, timeout_s: int = 600) -> str:
    """Run a command and return its standard output; after a timeout the command and its child processes are killed."""
    arguments = ["timeout", "--kill-after=30", str(timeout_s), *map(str, command)]
    process = subprocess.run(arguments, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, f"{shlex.join(arguments)}: {process.returncode}\n{process.stdout[-4000:]}{process.stderr[-4000:]}"
    return process.stdout


def _mirror() -> str:
    """Return the URL of this machine's Debian mirror."""
    for line in _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)").splitlines():
        uri, release = line.split()
        if release == "bookworm" and urlsplit(uri).path.strip("/").endswith("debian"):
            return uri
    pytest.skip("apt has no mirror of Debian bookworm")


def _debian(folder: Path) -> Path:
    """Return the archive of a minimal Debian with Python, which is cached after the first call."""
    archive = CACHE / "bookworm-python3.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        root, partial = folder / "root", archive.with_suffix(f".{os.getpid()}")
        packages = "--include=ca-certificates,python3,python3-venv"
        _run("debootstrap", "--variant=minbase", packages, "bookworm", root, _mirror(), timeout_s=BASE_TIMEOUT_S)
        (root / "etc" / "apt" / "apt.conf.d" / "99mirror").write_text(APT_CONFIG)
        _run(
            "tar", "--create", "--numeric-owner", "--exclude=./dev/*", "--exclude=./var/cache/apt/*.bin", "-C", root, "--file", partial, "."
        )
        shutil.rmtree(root)
        partial.rename(archive)
    return archive


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A base image with Python 3.11."""
    name = f"localhost/deeprank-test-base:{os.getpid()}"
    container = _run("buildah", "from", "scratch").strip()
    try:
        _run("buildah", "add", container, _debian(tmp_path_factory.mktemp("debian")), "/")
        _run("buildah", "commit", container, name)
    finally:
        _run("buildah", "rm", container)
    yield name
    _run("buildah", "rmi", "--force", name)


def _pip_settings() -> list[str]:
    """Return build arguments with the settings of pip on this machine, and volumes of the folders that they name."""
    settings: dict[str, str] = {}
    for line in sorted(_run(sys.executable, "-m", "pip", "config", "list").splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = literal_eval(value)
    arguments = []
    if "cert" in settings:
        # Not at its own path: the image has other certificates there.
        arguments += ["--volume", f"{settings['cert']}:/run/pip.crt:ro", "--build-arg", "PIP_CERT=/run/pip.crt"]
    for key in ("index-url", "extra-index-url", "find-links"):
        locations = settings.get(key, "").split()
        if locations:
            arguments += ["--build-arg", f"PIP_{key.replace('-', '_').upper()}={' '.join(locations)}"]
        for location in locations:
            # The files of an index may be next to the folder of its pages.
            folder = Path(urlsplit(location).path).parent if location.startswith("file:") else Path(location)
            if folder.is_absolute() and folder.is_dir():
                arguments += ["--volume", f"{folder}:{folder}:ro"]
    return arguments


@pytest.fixture(scope="module")
def image(base: str) -> Iterator[str]:
    """The image of `make image`, with PyTorch from the package index of this machine."""
    name = f"localhost/deeprank-test:{os.getpid()}"
    arguments = shlex.join(["--build-arg", "TORCH_INDEX=", *_pip_settings()])
    builder = "buildah bud --isolation chroot --format docker"
    _run("make", "image", f"IMAGE={name}", f"BUILD={builder}", f"BASE_IMAGE={base}", f"IMAGE_ARGS={arguments}", timeout_s=BUILD_TIMEOUT_S)
    yield name
    _run("buildah", "rmi", "--force", name)


@pytest.fixture(scope="module")
def release(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A release in a folder, with its canary."""
    folder = make_release_with_canary(tmp_path_factory.mktemp("served") / "release", catalogue, bundle, embeddings, triplets)
    # pytest's folders are readable by their owner only; the container has another user.
    _run("chmod", "--recursive", "a+rX", folder)
    return folder


@pytest.fixture
def container(image: str, release: Path, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """The service in a container: the container's name, and the URL of the service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = f"deeprank-test-{os.getpid()}"
    volumes = ["--volume", f"{release}:/release:ro", "--volume", f"{catalogue.uri}:{catalogue.uri}:ro"]
    serve = ["serve", "--model", "/release", "--host", "127.0.0.1", "--port", str(port)]
    _run(*PODMAN_RUN, "--detach", "--name", name, "--env", f"DEEPRANK_TOKEN={TOKEN}", *volumes, image, *serve, timeout_s=START_TIMEOUT_S)
    try:
        yield name, f"http://127.0.0.1:{port}"
    finally:
        _run("podman", "rm", "--force", "--volumes", name)


def _wait_for_service(name: str, url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            assert httpx.get(f"{url}/healthz").status_code == 200
            return
        except httpx.TransportError:
            running = _run("podman", "inspect", "--format", "{{.State.Running}}", name).strip()
            assert running == "true" and time.monotonic() < deadline, _run("sh", "-c", f"podman logs {name} 2>&1")
            time.sleep(1)


def test_a_container_serves_a_release(container: tuple[str, str], catalogue: Catalogue, synthetic_folder: Path) -> None:
    name, url = container
    _wait_for_service(name, url)
    row = catalogue.frame.iloc[0]
    image = (synthetic_folder / row["path"]).read_bytes()
    with httpx.Client(base_url=url, timeout=60) as client:
        query = {"files": {"image": image}, "data": {"k": "3"}}
        assert client.post("/v1/search", **query).status_code == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        response = client.post("/v1/search", **query)
        assert response.status_code == 200, response.text
        nearest = response.json()["neighbors"][0]
        assert (nearest["id"], nearest["label"]) == (row["id"], row["label"])
        assert nearest["distance"] == pytest.approx(0, abs=1e-3)
        assert client.get(f"/v1/images/{row['id']}").headers["content-type"] == "image/jpeg"
    _run("podman", "healthcheck", "run", name)
    assert _run("podman", "exec", name, "id", "--user").strip() == "1000"


def test_the_health_check_fails_only_for_a_silent_service(image: str) -> None:
    health_check = ("-S", "docker/healthcheck.py")
    _run(*PODMAN_RUN, "--rm", "--entrypoint", "python", image, *health_check)
    with pytest.raises(AssertionError, match="Connection refused"):
        _run(*PODMAN_RUN, "--rm", "--entrypoint", "python", image, *health_check, "serve", "--port", "1")


def test_a_job_sets_up_its_state_as_user_1000(image: str) -> None:
    output = _run(*PODMAN_RUN, "--rm", image, "run", "configs/no-such-file.yaml", "--help")
    assert "Run the training pipeline" in output
    assert _run(*PODMAN_RUN, "--rm", "--entrypoint", "sh", image, "-c", "command -v cc gcc c++ make || id --user").strip() == "1000"

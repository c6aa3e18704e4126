"""The image, built on a base that this machine makes itself, as no registry of images may be within reach."""

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
from tests.serving.conftest import make_checked_release

TOOLS = ("apt-get", "buildah", "debootstrap", "make", "podman", "runc")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root may make a base image with debootstrap"),
]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deeprank"
# Seconds for the base, for the image, and for a container to come up.
BASE_LIMIT, BUILD_LIMIT, START_LIMIT = 900, 2400, 300
# A mirror of packages that stands still is past its date some day.
APT = 'Acquire::Check-Valid-Until "false";\nAcquire::Check-Date "false";\n'
RUN = ("podman", "run", "--runtime", "runc", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096", "--network=host")
TOKEN = "as-long-as-a-token-is"


def _run(*command: str | Path, limit: int = 600) -> str:
    """Run a command, and end it with all its children where it takes too long; return what it prints."""
    words = ["timeout", "--kill-after=30", str(limit), *map(str, command)]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def _mirror() -> str:
    """Return where this machine gets Debian's packages from."""
    for line in _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)").splitlines():
        uri, release = line.split()
        if release == "bookworm" and urlsplit(uri).path.strip("/").endswith("debian"):
            return uri
    pytest.skip("apt knows no mirror of Debian bookworm")


def _debian(folder: Path) -> Path:
    """Return the archive of a minimal Debian with Python; it is made once and kept."""
    archive = CACHE / "bookworm-python3.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        root, part = folder / "root", archive.with_suffix(f".{os.getpid()}")
        packages = "--include=ca-certificates,python3,python3-venv"
        _run("debootstrap", "--variant=minbase", packages, "bookworm", root, _mirror(), limit=BASE_LIMIT)
        (root / "etc" / "apt" / "apt.conf.d" / "99mirror").write_text(APT)
        _run("tar", "--create", "--numeric-owner", "--exclude=./dev/*", "--exclude=./var/cache/apt/*.bin", "-C", root, "--file", part, ".")
        shutil.rmtree(root)
        part.rename(archive)
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
    """Return the build arguments that let pip find packages as it does on this machine, with the folders that its settings name."""
    found: dict[str, str] = {}
    for line in sorted(_run(sys.executable, "-m", "pip", "config", "list").splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        found[key.rpartition(".")[2]] = literal_eval(value)
    arguments = []
    if "cert" in found:
        # Not where it is here: the image has certificates of its own there.
        arguments += ["--volume", f"{found['cert']}:/run/pip.crt:ro", "--build-arg", "PIP_CERT=/run/pip.crt"]
    for key in ("index-url", "extra-index-url", "find-links"):
        words = found.get(key, "").split()
        if words:
            arguments += ["--build-arg", f"PIP_{key.replace('-', '_').upper()}={' '.join(words)}"]
        for word in words:
            # The files of an index may lie beside the folder of its pages.
            folder = Path(urlsplit(word).path).parent if word.startswith("file:") else Path(word)
            if folder.is_absolute() and folder.is_dir():
                arguments += ["--volume", f"{folder}:{folder}:ro"]
    return arguments


@pytest.fixture(scope="module")
def image(base: str) -> Iterator[str]:
    """What `make image` builds; PyTorch comes from where pip has it here."""
    name = f"localhost/deeprank-test:{os.getpid()}"
    arguments = shlex.join(["--build-arg", "TORCH_INDEX=", *_pip_settings()])
    builder = "buildah bud --isolation chroot --format docker"
    _run("make", "image", f"IMAGE={name}", f"BUILD={builder}", f"BASE_IMAGE={base}", f"IMAGE_ARGS={arguments}", limit=BUILD_LIMIT)
    yield name
    _run("buildah", "rmi", "--force", name)


@pytest.fixture(scope="module")
def release(
    catalogue: Catalogue, bundle: Bundle, embeddings: np.ndarray, triplets: Triplets, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A release in a folder, with its canary."""
    folder = make_checked_release(tmp_path_factory.mktemp("served") / "release", catalogue, bundle, embeddings, triplets)
    # pytest's folders are for their owner only, which the container's user is not.
    _run("chmod", "--recursive", "a+rX", folder)
    return folder


@pytest.fixture
def container(image: str, release: Path, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """The service in a container: its name, and where it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = f"deeprank-test-{os.getpid()}"
    volumes = ["--volume", f"{release}:/release:ro", "--volume", f"{catalogue.uri}:{catalogue.uri}:ro"]
    serve = ["serve", "--model", "/release", "--host", "127.0.0.1", "--port", str(port)]
    _run(*RUN, "--detach", "--name", name, "--env", f"DEEPRANK_TOKEN={TOKEN}", *volumes, image, *serve, limit=START_LIMIT)
    try:
        yield name, f"http://127.0.0.1:{port}"
    finally:
        _run("podman", "rm", "--force", "--volumes", name)


def _wait(name: str, url: str) -> None:
    until = time.monotonic() + START_LIMIT
    while True:
        try:
            assert httpx.get(f"{url}/healthz").status_code == 200
            return
        except httpx.TransportError:
            running = _run("podman", "inspect", "--format", "{{.State.Running}}", name).strip()
            assert running == "true" and time.monotonic() < until, _run("sh", "-c", f"podman logs {name} 2>&1")
            time.sleep(1)


def test_a_container_serves_a_release(container: tuple[str, str], catalogue: Catalogue, synthetic_folder: Path) -> None:
    name, url = container
    _wait(name, url)
    row = catalogue.frame.iloc[0]
    image = (synthetic_folder / row["path"]).read_bytes()
    with httpx.Client(base_url=url, timeout=60) as client:
        asked = {"files": {"image": image}, "data": {"k": "3"}}
        assert client.post("/v1/search", **asked).status_code == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        answer = client.post("/v1/search", **asked)
        assert answer.status_code == 200, answer.text
        nearest = answer.json()["neighbors"][0]
        assert (nearest["id"], nearest["label"]) == (row["id"], row["label"])
        assert nearest["distance"] == pytest.approx(0, abs=1e-3)
        assert client.get(f"/v1/images/{row['id']}").headers["content-type"] == "image/jpeg"
    _run("podman", "healthcheck", "run", name)
    assert _run("podman", "exec", name, "id", "--user").strip() == "1000"


def test_a_service_that_does_not_answer_is_unwell_and_a_job_is_well(image: str) -> None:
    healthy = ("-S", "docker/healthcheck.py")
    _run(*RUN, "--rm", "--entrypoint", "python", image, *healthy)
    with pytest.raises(AssertionError, match="Connection refused"):
        _run(*RUN, "--rm", "--entrypoint", "python", image, *healthy, "serve", "--port", "1")


def test_a_job_sets_up_its_state_as_user_1000_and_asks_for_its_config(image: str) -> None:
    told = _run(*RUN, "--rm", image, "run", "configs/no-such-file.yaml", "--help")
    assert "Run the training pipeline" in told
    assert _run(*RUN, "--rm", "--entrypoint", "sh", image, "-c", "command -v cc gcc c++ make || id --user").strip() == "1000"

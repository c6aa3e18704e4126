"""The settings file of `deeprank serve`."""

from pathlib import Path

from tests.cli.conftest import Run


def test_serve_refuses_a_renamed_setting(tmp_path: Path, deeprank: Run) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("batching: {nets: 2}\n")
    code, _, err = deeprank("serve", "--config", str(config))
    assert code == 1
    assert f"{config}: unknown key batching.nets: it was renamed to batching.num_workers" in err


def test_serve_names_the_nearest_setting(tmp_path: Path, deeprank: Run) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("batching: {num_worker: 2}\n")
    code, _, err = deeprank("serve", "--config", str(config))
    assert code == 1
    assert f"{config}: unknown key batching.num_worker; did you mean num_workers?" in err

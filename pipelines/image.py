"""Docker settings for stacks that start containers: steps run in the project's own image, with the packages of the stack added."""

from zenml.config import DockerSettings
from zenml.config.docker_settings import DockerBuildConfig, DockerBuildOptions, PythonPackageInstaller

from deeprank.home import PROJECT
from steps.tracking import git_commit

IMAGE = DockerSettings(
    dockerfile=str(PROJECT / "docker" / "Dockerfile"),
    build_context_root=str(PROJECT),
    # In the stage `project` the user is root, so that ZenML can install packages; then ZenML sets the user.
    # For a GPU: build_args {TORCH_INDEX: ""} under settings.docker.parent_image_build_config.build_options of a config.
    parent_image_build_config=DockerBuildConfig(build_options=DockerBuildOptions(target="project", build_args={"COMMIT": git_commit()})),
    user="1000",
    python_package_installer=PythonPackageInstaller.PIP,
    python_package_installer_args={"constraint": "/project/constraints.txt"},
    # The code is in the image. ZenML must not download it, and must not reuse an image with older code.
    allow_including_files_in_images=False,
    allow_download_from_code_repository=False,
    allow_download_from_artifact_store=False,
    prevent_build_reuse=True,
)

"""A recipe's section `loggers`: to which of Composer's own loggers a run's numbers go besides metrics.jsonl."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mixstream.errors import MissingExtraError
from mixstream.formats import FileModel

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # of each logger that needs one
Name = Annotated[str, Field(min_length=1)]


class TensorboardRecipe(FileModel):
    """Event files for TensorBoard.

    Attributes:
        log_dir: folder of them, in which each run has a folder of its name; None: RUN/loggers/tensorboard.
    """

    log_dir: Name | None = None


class WandbRecipe(FileModel):
    """Weights & Biases; the key is in the environment (WANDB_API_KEY), or where ``wandb login`` left it.

    Attributes:
        project, entity, group, tags: as W&B has them; the run's name is its folder's.
        mode: ``offline`` writes to RUN/loggers/wandb only, for ``wandb sync``.
    """

    project: Name = "mixstream"
    entity: Name | None = None
    group: Name | None = None
    tags: tuple[Name, ...] = ()
    mode: Literal["online", "offline"] = "online"


class MlflowRecipe(FileModel):
    """MLflow; passwords are in the environment, as MLflow has them.

    Attributes:
        tracking_uri: of the server or the folder; None: RUN/loggers/mlflow.
        experiment: its name.
    """

    tracking_uri: Name | None = None
    experiment: Name = "mixstream"

    @field_validator("tracking_uri")
    @classmethod
    def _has_no_password(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).username is not None:
            raise ValueError(
                "a recipe is copied into the run's folder, and is no place for a password; give it as "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
            )
        return value


class FileRecipe(FileModel):
    """A text for people, a number a line: RUN/loggers/log-rank0.txt of each rank, and another at each start."""


class LoggersRecipe(FileModel):
    """Where a run's numbers go besides metrics.jsonl; none of it changes the run."""

    tensorboard: TensorboardRecipe | None = None
    wandb: WandbRecipe | None = None
    mlflow: MlflowRecipe | None = None
    file: FileRecipe | None = None

    @model_validator(mode="after")
    def _has_one(self) -> LoggersRecipe:
        if not self.names:
            known = ", ".join(f"{name}: {{}}" for name in type(self).model_fields)
            raise ValueError(f"names no logger; expected one or more of {known}, or leave the section out")
        return self

    @property
    def names(self) -> list[str]:
        """The loggers that are asked for."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]


def check_loggers(recipe: LoggersRecipe | None) -> None:
    """Refuse loggers whose packages are not installed, before anything is trained.

    Raises:
        MissingExtraError: naming what to install.
    """
    for name in recipe.names if recipe else ():
        package = PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            raise MissingExtraError(
                f"loggers.{name} needs the package {package!r}; install it with pip install 'mixstream-llm[loggers]', "
                f"or leave it out"
            )

"""Metrics of every epoch for the tools that draw them: CSV, TensorBoard, MLflow, Weights & Biases, by Fabric's loggers.

Rule: nothing is logged that was not asked for by name, and a tool's package is imported only then. Each start of a
training is a run of its own; the step is the epoch, so that a resumed run goes on where the first one ended.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from pipeline.errors import DataError, UsageError

PROJECT = "edgeproof"
"""MLflow's experiment; W&B's project where WANDB_PROJECT names no other."""
logger = logging.getLogger(__name__)
_ODD = re.compile(r"[^\w./-]")
"""What MLflow or TensorBoard forbid in a name: the dash of a second `kd'`."""


@dataclass(frozen=True)
class _Run:
    """A tool's run, what ends it (told whether the training failed), and what may go wrong between."""

    name: str
    writer: Logger
    end: Callable[[bool], None]
    failure: type[Exception] = OSError


class Loggers:
    """Some loggers as one `OnMetrics` of the fit loop; as a context it tells them how the run ended."""

    def __init__(self, runs: Sequence[_Run]) -> None:
        self._runs = tuple(runs)

    def __call__(self, metrics: Mapping[str, float], /) -> None:
        """Log one epoch and write it out at once; a tool that fails is left out from then on: training goes on."""
        step = int(metrics["epoch"])
        values = {_ODD.sub("_", name): value for name, value in metrics.items() if name != "epoch"}
        for run in self._runs:
            with self._surviving(run):
                run.writer.log_metrics(values, step)
                run.writer.save()

    def close(self, *, failed: bool = False) -> None:
        """End the runs, and say how."""
        for run in self._runs:
            with self._surviving(run):
                run.end(failed)

    @contextmanager
    def _surviving(self, run: _Run) -> Iterator[None]:
        try:
            yield
        except run.failure as error:
            logger.warning("--log %s: %s: nothing more is logged there", run.name, _first(error))
            self._runs = tuple(other for other in self._runs if other is not run)

    def __enter__(self) -> "Loggers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(failed=kind is not None)


def require_known(names: Sequence[str]) -> None:
    """Refuse a name that is no logger's.

    Raises:
        UsageError: lists those that are.
    """
    if unknown := [name for name in names if name not in _OPENERS]:
        raise UsageError(f"--log: expected some of {', '.join(_OPENERS)}; got {unknown[0]}")


def open_loggers(names: Sequence[str], folder: Path, run_name: str) -> Loggers:
    """Return an OnMetrics that logs to every tool of `names`: csv, tensorboard, mlflow, wandb.

    csv and tensorboard write to `folder/NAME/run_name/version_N`; mlflow to where MLFLOW_TRACKING_URI points, else to
    `folder/mlflow`; wandb to its server as its own settings say (WANDB_MODE=offline keeps it in `folder/wandb`).
    In a run of several processes only the first one logs.

    Raises:
        UsageError: a name is none of these, or its package is not installed.
        DataError: the tool cannot start a run.
    """
    require_known(names)
    return Loggers([_OPENERS[name](folder, run_name) for name in dict.fromkeys(names)])


def _open_csv(folder: Path, run_name: str) -> _Run:
    return _finalized("csv", CSVLogger(folder / "csv", run_name))


def _open_tensorboard(folder: Path, run_name: str) -> _Run:
    try:
        return _finalized("tensorboard", TensorBoardLogger(folder / "tensorboard", run_name))
    except ModuleNotFoundError as error:
        raise _not_installed("tensorboard", "tensorboardX") from error


def _open_mlflow(folder: Path, run_name: str) -> _Run:
    try:
        from mlflow.exceptions import MlflowException
        from pytorch_lightning.loggers import MLFlowLogger
    except ModuleNotFoundError as error:
        raise _not_installed("mlflow", str(error.name)) from error
    own = (folder / "mlflow").absolute()
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if not named:
        own.mkdir(parents=True, exist_ok=True)
    try:
        writer = MLFlowLogger(
            experiment_name=PROJECT,
            run_name=run_name,
            tracking_uri=named or f"sqlite:///{own / 'mlflow.db'}",
            artifact_location=None if named else own.as_uri(),
        )
        _ = writer.experiment  # starts the run, so that a refusal comes before training
    except MlflowException as error:
        raise _refused("mlflow", error, "check MLFLOW_TRACKING_URI, or unset it to log to a folder") from error
    return _finalized("mlflow", writer, MlflowException)


def _open_wandb(folder: Path, run_name: str) -> _Run:
    try:
        from pytorch_lightning.loggers import WandbLogger
        from wandb.errors import Error
    except ModuleNotFoundError as error:
        raise _not_installed("wandb", str(error.name)) from error
    folder.mkdir(parents=True, exist_ok=True)
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    writer = WandbLogger(name=run_name, save_dir=folder, project=project)
    try:
        run = writer.experiment  # as above
    except Error as error:
        raise _refused("wandb", error, "log in with `wandb login`, or set WANDB_MODE=offline") from error
    # finalize would leave the run open, and the next training would go on in it
    return _Run("wandb", writer, lambda failed: run.finish(exit_code=int(failed)), Error)


_OPENERS: dict[str, Callable[[Path, str], _Run]] = {
    "csv": _open_csv,
    "tensorboard": _open_tensorboard,
    "mlflow": _open_mlflow,
    "wandb": _open_wandb,
}


def _finalized(name: str, writer: Logger, failure: type[Exception] = OSError) -> _Run:
    return _Run(name, writer, lambda failed: writer.finalize("failed" if failed else "success"), failure)


def _not_installed(name: str, package: str) -> UsageError:
    return UsageError(
        f"--log {name}: expected the package {package}; it is not installed: pip install 'edgeproof[{name}]'"
    )


def _refused(name: str, error: Exception, advice: str) -> DataError:
    return DataError(f"--log {name}: expected to start a run; got: {_first(error)}: {advice}")


def _first(error: Exception) -> str:
    """Return the first line of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

"""A compiled model on its device, and the measurements that the chain takes of it: always fresh, always timed."""

from dataclasses import dataclass

from pipeline.artifacts import Accuracy, CompiledModel, LatencyProfile, OnnxModel, Parity
from pipeline.models.trained import TrainedModel
from pipeline.recipe import Deployment
from pipeline.run import Run
from pipeline.stages.check_parity import Runtime, check_parity
from pipeline.stages.compile_model import Site
from pipeline.stages.measure_accuracy import ChainPredictions, measure_accuracy
from pipeline.stages.profile_latency import profile_latency
from pipeline.tasks import AnyTask
from targets import reference_target
from targets.devices.device import open_device
from targets.target import RunOptions


@dataclass(frozen=True)
class OnDevice:
    """What ships, where it runs, and who hears of progress."""

    task: AnyTask
    deployment: Deployment
    model: OnnxModel
    compiled: CompiledModel
    site: Site
    run: Run

    def parity(self, shipped: TrainedModel) -> Parity:
        """Compare the trained model in torch, its ONNX as written (on the host), and the compiled artifact."""
        host = open_device("local", self.run.work)
        reference = Runtime(reference_target(), host, RunOptions())
        runtime = Runtime(self.deployment.target, self.site.device, options_of(self.deployment))
        return self.run.measure(
            "check_parity",
            lambda on_progress: check_parity(
                self.task, shipped, model=self.model, compiled=self.compiled, reference=reference, runtime=runtime
            ),
        )

    def accuracy(self, predictions: ChainPredictions) -> Accuracy:
        """Run the whole test set through the compiled artifact."""
        return self.run.measure(
            "measure_accuracy",
            lambda on_progress: measure_accuracy(
                self.task,
                self.compiled,
                predictions,
                model=self.model,
                target=self.deployment.target,
                device=self.site.device,
                options=options_of(self.deployment),
                on_progress=on_progress,
            ),
        )

    def latency(self, *, at_most_s: float | None = None) -> LatencyProfile:
        """Sample latency until the budget is decided, or the deployment's time (or `at_most_s`) is up."""
        protocol = self.deployment.profile
        seconds = min(protocol.max_seconds, at_most_s or protocol.max_seconds)
        return self.run.measure(
            "profile_latency",
            lambda on_progress: profile_latency(
                self.compiled,
                self.deployment.target,
                self.site.device,
                options_of(self.deployment),
                budget=self.deployment.budget.latency,
                protocol=protocol.model_copy(update={"max_seconds": seconds}),
                processing=self.task.normalization.processing(),
                on_progress=lambda num_samples, spent: on_progress(round(spent), round(seconds)),
            ),
        )


def options_of(deployment: Deployment) -> RunOptions:
    """Return how the deployment's models run: floats stay float32 beside int8, so that figures compare."""
    return RunOptions(threads=deployment.threads, precision="fp32")

"""What a model is for: one file a task (data, metric, pre- and post-processing). The union is the registry."""

from pipeline.tasks.classification import ClassificationTask

AnyTask = ClassificationTask

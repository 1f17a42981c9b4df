"""What a student learns from: losses, one family of the literature a file. The union is the registry."""

from typing import Annotated

from pydantic import Discriminator, Tag

from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.kinds import kind_of
from pipeline.user_files import UserObject

AnyLoss = Annotated[
    Annotated[CrossEntropy, Tag("cross_entropy")]
    | Annotated[KnowledgeDistillation, Tag("kd")]
    | Annotated[UserObject, Tag("FILE.py:NAME")],
    Discriminator(kind_of),
]

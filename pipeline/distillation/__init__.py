"""What a student learns from: losses, one family of the literature a file. The union is the registry."""

from typing import Annotated

from pydantic import Discriminator, Tag

from pipeline.distillation.attention import AttentionTransfer
from pipeline.distillation.contrastive import ContrastiveRepresentationDistillation, InfoNce
from pipeline.distillation.correlation import CorrelationDistillation
from pipeline.distillation.decoupled import DecoupledDistillation, NormalizedDistillation
from pipeline.distillation.hints import SRD, FitNet
from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.lifelong import LearningWithoutForgetting
from pipeline.distillation.multi_teacher import EnsembleDistillation
from pipeline.distillation.online import DeepMutualLearning
from pipeline.distillation.response import HardLabel, KnowledgeDistillation
from pipeline.distillation.review import KnowledgeReview
from pipeline.distillation.sample_relations import RelationalKnowledgeDistillation, SimilarityPreserving
from pipeline.distillation.self_distillation import BeYourOwnTeacher
from pipeline.kinds import kind_of
from pipeline.user_files import UserObject

AnyLoss = Annotated[
    Annotated[CrossEntropy, Tag("cross_entropy")]
    | Annotated[KnowledgeDistillation, Tag("kd")]
    | Annotated[HardLabel, Tag("hard_label")]
    | Annotated[DecoupledDistillation, Tag("dkd")]
    | Annotated[NormalizedDistillation, Tag("nkd")]
    | Annotated[CorrelationDistillation, Tag("dist")]
    | Annotated[EnsembleDistillation, Tag("ensemble_kd")]
    | Annotated[LearningWithoutForgetting, Tag("lwf")]
    | Annotated[FitNet, Tag("fitnet")]
    | Annotated[SRD, Tag("srd")]
    | Annotated[KnowledgeReview, Tag("review_kd")]
    | Annotated[AttentionTransfer, Tag("at")]
    | Annotated[RelationalKnowledgeDistillation, Tag("rkd")]
    | Annotated[SimilarityPreserving, Tag("sp")]
    | Annotated[ContrastiveRepresentationDistillation, Tag("crd")]
    | Annotated[InfoNce, Tag("info_nce")]
    | Annotated[DeepMutualLearning, Tag("dml")]
    | Annotated[BeYourOwnTeacher, Tag("byot")]
    | Annotated[UserObject, Tag("FILE.py:NAME")],
    Discriminator(kind_of),
]

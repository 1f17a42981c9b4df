"""What the table of methods compares: each row's losses, as a recipe would write them, and what else it changes."""

from dataclasses import dataclass
from typing import Any

LABELS = {"kind": "cross_entropy", "weight": 1.0}
FEW_LABELS = {"kind": "cross_entropy", "weight": 0.1}
KD = {"kind": "kd", "weight": 0.9, "temperature": 4.0}


@dataclass(frozen=True)
class Method:
    """One row: losses, and changes to the recipe beside them."""

    name: str
    losses: tuple[dict[str, Any], ...]
    distillation: dict[str, Any] | None = None
    views: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    more_teachers: tuple[dict[str, Any], ...] = ()


RESNET20 = {"kind": "resnet", "depth": 20, "width": 16, "shortcut": "A"}
RESNET20_TEACHER = {"model": RESNET20, "checkpoint": "teachers/derived/resnet20_ft_jpeg.pt"}

FULL = (
    Method("no teacher", (LABELS,)),
    Method("KD", (FEW_LABELS, KD)),
    Method("KD + LS", (FEW_LABELS, {"kind": "kd", "weight": 9.0, "temperature": 2.0, "standardize": True})),
    Method("DKD", (LABELS, {"kind": "dkd", "beta": 2.0, "warmup_epochs": 2.0})),
    Method("DIST", (LABELS, {"kind": "dist"})),
    Method("SRD", (LABELS, {"kind": "srd"}, {"kind": "kd", "weight": 1.0, "temperature": 1.0})),
)
"""On all images. DKD's warm-up is the paper's twelfth of the run."""

SHORT = (
    *FULL,
    Method("KD, live teacher", (FEW_LABELS, KD), distillation={"live_teacher": True}),
    Method("KD from an int8 teacher", (FEW_LABELS, KD), distillation={"teacher_precision": "int8"}),
    Method("hard label", ({"kind": "cross_entropy", "weight": 0.5}, {"kind": "hard_label"})),
    Method("NKD", (LABELS, {"kind": "nkd"})),
    Method("FitNet", (LABELS, {"kind": "fitnet"})),
    Method("AT", (LABELS, {"kind": "at"})),
    Method("ReviewKD", (LABELS, {"kind": "review_kd", "weight": 0.6, "warmup_epochs": 0.5})),
    Method("RKD", (LABELS, {"kind": "rkd"})),
    Method("RKD beside KD", (FEW_LABELS, KD, {"kind": "rkd", "weight": 0.1})),
    Method("SP", (LABELS, {"kind": "sp"})),
    Method("CRD", (LABELS, {"kind": "crd"})),
    Method("InfoNCE in the batch", (LABELS, {"kind": "info_nce"})),
    Method("DML (no teacher)", (LABELS, {"kind": "dml"})),
    Method("BYOT (no teacher)", (LABELS, {"kind": "byot"})),
    Method("two teachers", (FEW_LABELS, {"kind": "ensemble_kd"}), more_teachers=(RESNET20_TEACHER,)),
    Method("assistant ResNet-20", (FEW_LABELS, KD), distillation={"assistants": [{"model": RESNET20}]}),
    Method("born again", (FEW_LABELS, KD), distillation={"assistants": [{"model": "student"}]}),
    Method("function matching", ({"kind": "kd", "weight": 1.0, "temperature": 1.0},), views={"mixup": 1.0}),
    Method("AT beside KD", (FEW_LABELS, KD, {"kind": "at", "weight": 100.0})),
    Method("CRD beside KD", (FEW_LABELS, KD, {"kind": "crd", "weight": 0.08})),
    Method("DML beside KD", (FEW_LABELS, KD, {"kind": "dml", "weight": 0.1})),
    Method("BYOT beside KD", (FEW_LABELS, KD, {"kind": "byot", "weight": 0.1})),
    Method("function matching with fewer mixed", (dict(KD, weight=1.0),), views={"mixup": 0.2}),
    Method("KD, moving average", (FEW_LABELS, KD), training={"ema_decay": 0.99}),
)
"""On 10,000 images: everything that applies to a classifier with one teacher's data."""

VIEWS = tuple(Method(f"KD, {num} views", (FEW_LABELS, KD), views={"in_use": num}) for num in (1, 2, 6, 20))
"""What the knob `in_use` does, over 20 epochs of 10,000 images."""

# What constants.py holds; it is rendered from the manifest of a release.
from typing import Optional, Tuple

NAME: str
VERSION: str
PLATFORM: str
INPUT_NAME: str
LAYOUT: str
HEIGHT: int
WIDTH: int
CHANNELS: int
BATCH: Optional[int]
SCALE: Tuple[float, ...]
BIAS: Tuple[float, ...]
OUTPUT_NAME: str
ACTIVATION: str
LABELS: Tuple[str, ...]
MODEL_SHA256: str
THREADS: int
SCOPE: str
MEASURED_ON: str
NOT_MEASURED: str

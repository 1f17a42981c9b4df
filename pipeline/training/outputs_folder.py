"""The folder of teacher outputs: one folder a teacher and data set, one file a column. Rule: imports no torch."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

TEACHER_OUTPUTS = "teacher_outputs"
"""In the build folder."""
SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True)
class OutputsFolder:
    """Where teacher outputs are kept between runs; results do not depend on it."""

    path: Path

    def fingerprint(self) -> str:
        """Return the same for every folder: it counts in no key."""
        return "teacher outputs"

    def size_bytes(self) -> int:
        """Return the bytes of all columns."""
        return sum(file.stat().st_size for file in self.path.rglob("*.safetensors"))

    def prune(self, unused_days: float) -> int:
        """Remove the teachers whose columns were not read for so many days; return the bytes freed."""
        before = self.size_bytes()
        oldest = time.time() - unused_days * SECONDS_A_DAY
        for teacher in self.path.iterdir() if self.path.is_dir() else ():
            if max((file.stat().st_mtime for file in teacher.iterdir()), default=0.0) <= oldest:
                shutil.rmtree(teacher)
        return before - self.size_bytes()

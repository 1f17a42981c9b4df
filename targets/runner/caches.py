"""Folders in which runtimes keep what makes the next compile or load faster: beside the folders of jobs.

Rule: only a job says where; without one nothing is kept. Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

VARIABLE = "EDGEPROOF_CACHES"
"""Names the folder to this process and those that it starts."""


def keep_caches(job: Path) -> None:
    """Let runtimes keep caches beside the folder of a job, or beside the folder of all jobs."""
    work = job.parent.parent if job.parent.name == "jobs" else job.parent
    os.environ[VARIABLE] = str(work / "caches")


def find_cache(name: str) -> Optional[Path]:
    """Return the folder of that name; None where nothing is kept, or no folder can be made."""
    root = os.environ.get(VARIABLE)
    if root is None:
        return None
    folder = Path(root) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder

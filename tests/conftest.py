"""What tests of every package share."""

import os
from pathlib import Path

import pytest

for name, value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "passive")):
    os.environ.setdefault(
        name, value
    )  # on tensors as small as these, threads only wait for each other: 15 times slower


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data: EDGEPROOF_DATA, or shared/data beside the checkout."""
    named = os.environ.get("EDGEPROOF_DATA")
    folder = Path(named) if named else Path(__file__).absolute().parents[2] / "shared" / "data"
    if not (folder / "cifar10").is_dir():
        pytest.skip(f"needs real data: expected {folder}/cifar10; set EDGEPROOF_DATA to a folder that holds it")
    return folder

"""The peers' own virtual environment: this project's stays as it is."""

import os
import subprocess
import sys
from pathlib import Path


def peer_python(folder: Path, requirements: Path) -> Path:
    """Return the Python of the environment in `folder`; make it where it is missing or was made for other versions."""
    python = folder / "bin" / "python"
    stamp = folder / "installed.txt"
    wanted = requirements.read_text()
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing {requirements.name} into {folder} (once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = ["-m", "pip", "install", "--quiet", "-r", str(requirements)]
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if subprocess.run([str(python), *install], env=alone, check=False).returncode:
            sys.exit(f"{folder}: pip could not install {requirements}, see above")
        stamp.write_text(wanted)
    return python

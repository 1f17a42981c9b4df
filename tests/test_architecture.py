"""The house keeps its floors: what imports what, who knows a runtime by name, and what loads when."""

import re
import subprocess
import sys
from pathlib import Path

from targets import TARGETS

ROOT = Path(__file__).parents[1]
RUNTIMES = [target.kind for target in TARGETS if target.kind != "null"]


def lint_imports(config: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo", "--config", str(config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_imports_obey_the_contracts_of_pyproject() -> None:
    done = lint_imports(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stage_that_imported_another_would_be_seen(tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    config = tmp_path / "upside_down.toml"
    config.write_text(text.replace('"pipeline.stages.*"', '"pipeline.stages.*", "pipeline.chain"'))
    done = lint_imports(config)
    assert done.returncode == 1
    assert "pipeline.chain is not allowed to import pipeline.stages" in done.stdout


def test_no_runtime_is_named_in_pipeline_outside_release() -> None:
    files = [path for path in (ROOT / "pipeline").rglob("*") if path.suffix in (".py", ".jinja", ".toml")]
    named = {
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        if "release" not in path.relative_to(ROOT).parts
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if re.search("|".join(RUNTIMES), line, re.IGNORECASE)
    }
    assert len(files) > 60
    assert named == set()


def test_lower_floors_load_the_standard_library_and_numpy_alone() -> None:
    code = """
import importlib, pkgutil, sys
before = {name.split(".")[0] for name in sys.modules}
for name in ("calibration", "targets"):
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(found.name)
loaded = {name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
print(sorted(name for name in loaded if not name.startswith("_")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['calibration', 'numpy', 'targets']"

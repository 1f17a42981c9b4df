"""A web package as npm unpacks it, and JavaScript that uses it in Node."""

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from pydantic import JsonValue

from pipeline.release.payload import Package

DOUBLES = Path(__file__).parent / "web_doubles" / "runtime.mjs"


def unpack(package: Package, folder: Path) -> Path:
    """Return the folder that npm would install."""
    with tarfile.open(fileobj=io.BytesIO(package.files[package.archive])) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def run_js(installed: Path, body: str, **given: JsonValue) -> JsonValue:
    """Return what the body of an async function returns, which has the package's exports, `recorded` and `given`."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node: install nodejs")
    program = f"""
        import {{ recorded }} from {json.dumps(DOUBLES.as_uri())};
        import {{ RELEASE, ReleaseError, agrees, load, pixelsOf }} from {json.dumps((installed / "node.js").as_uri())};
        const given = {json.dumps(given)};
        const main = async () => {{ {body} }};
        console.log(JSON.stringify(await main()));
    """
    command = [node, "--input-type=module", "--eval", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    result: JsonValue = json.loads(done.stdout)
    return result


REFUSAL = "return await load({ ort }).then(() => 'taken', (error) => `${error.name}: ${error.message}`)"

"""Whether `edgeproof verify` catches tampering: over 50 tamperings of the release and of every platform's archive.

Run: PYTHONPATH=. .venv/bin/python benchmarks/release_tampering.py [RELEASE.zip]
Without a release it takes the one of recipes/digits.toml in build/. Each archive is signed, each tampered one is given
to the command line as a file; exit code 1 and the differences are what is expected of it, and a traceback is not. The
table goes to build/bench/release_tampering.json too. Exits with 1 where one is not caught.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from benchmarks.tampering_lab import Tampering, Victim, victim
from benchmarks.tamperings import archives, bytes_, contents, manifests, signatures
from pipeline.cli import run
from pipeline.release.packages import make_package
from pipeline.release.payload import Payload, read_payload
from pipeline.release.platforms import DEFAULTS
from pipeline.release.seal import seal
from pipeline.release.signing import PUBLIC_FILE, SigningKey
from pipeline.release.verify import verify_bytes

OUT = Path("build/bench/release_tampering.json")
CAUGHT = "NOT as it was packed"
"""What the verb says, and no traceback does."""


@dataclass(frozen=True)
class Outcome:
    """What became of one tampering of one archive."""

    name: str
    done: str
    kind: str
    num: int
    """Tampered archives."""
    num_caught: int
    exit_code: int
    message: str
    under_key: bool


def victims(payload: Payload, key: SigningKey, stranger: SigningKey) -> list[Victim]:
    """Return the release and every archive of every platform, signed."""
    whole = seal({}, payload, platform="any", root="", model=payload.manifest.model, signer=key)
    found = {"release.zip": whole}
    for platform in DEFAULTS.values():
        package = make_package(platform, payload, key)
        sealed = {name: raw for name, raw in package.files.items() if verify_bytes(raw).ok}
        found |= {f"{platform.kind}{Path(name).suffix}": raw for name, raw in sealed.items()}
    return [victim(kind, raw, key, stranger) for kind, raw in found.items()]


def attempt(tampering: Tampering, each: Victim, folder: Path) -> Outcome | None:
    """Tamper with an archive, and have the command line look at it; None where the kind has no such thing."""
    made = tampering.make(each)
    if made is None:
        return None
    tampered = made if isinstance(made, list) else [made]
    key = each.key.public if tampering.needs_key else None
    path = folder / f"tampered{Path(each.kind).suffix}"
    path.write_bytes(tampered[0])
    option = ["--key", str(folder / PUBLIC_FILE)] if tampering.needs_key else []
    code, said = verify(path, *option)
    caught = code == 1 and CAUGHT in said
    num_caught = caught + sum(not verify_bytes(raw, key).ok for raw in tampered[1:])
    first = said.splitlines()[0] if said else ""
    return Outcome(
        tampering.name, tampering.done, each.kind, len(tampered), num_caught, code, first, tampering.needs_key
    )


def verify(path: Path, *arguments: str) -> tuple[int, str]:
    """Return exit code and words of `edgeproof verify`."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        code = run(["verify", str(path), *arguments])
    return code, out.getvalue()


def show(console: Console, outcomes: list[Outcome], kinds: list[str]) -> None:
    """Print a line for each tampering: what was done, caught where, and what was said first."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("tampering", "done", "caught", "exit", "said first (of the last archive)"):
        table.add_column(column, overflow="fold")
    for name in dict.fromkeys(outcome.name for outcome in outcomes):
        same = [outcome for outcome in outcomes if outcome.name == name]
        num, caught = sum(each.num for each in same), sum(each.num_caught for each in same)
        codes = ",".join(sorted({str(each.exit_code) for each in same}))
        option = " (--key)" if same[0].under_key else ""
        table.add_row(name, same[0].done, f"{caught} of {num}", codes + option, same[-1].message[:150])
    console.print(table)
    console.print(f"archives: {', '.join(kinds)}")


def main() -> int:
    """Tamper with everything; return 1 where anything was not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", nargs="?", type=Path, default=Path("build/digits/cpu/release/digits-0.1.0-cpu.zip"))
    release = parser.parse_args().release
    console = Console(highlight=False, width=200)
    key, stranger = (SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number] * 32))) for number in (1, 2))
    every = [*bytes_(), *contents(), *manifests(), *archives(), *signatures()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / PUBLIC_FILE).write_bytes(key.public.pem())
        found = victims(read_payload(release), key, stranger)
        for each in found:
            path = folder / f"whole{Path(each.kind).suffix}"
            path.write_bytes(each.raw)
            code, said = verify(path, "--key", str(folder / PUBLIC_FILE))
            assert code == 0, said
        outcomes = [done for tampering in every for each in found if (done := attempt(tampering, each, folder))]
    show(console, outcomes, [each.kind for each in found])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    missed = [outcome for outcome in outcomes if outcome.num_caught != outcome.num]
    num = sum(outcome.num for outcome in outcomes)
    console.print(
        f"{len(every)} tamperings of {len(found)} archives: {num - sum(m.num - m.num_caught for m in missed)} of {num} "
        f"tampered files caught; {OUT}"
    )
    for outcome in missed:
        console.print(f"NOT CAUGHT: {outcome.name} of {outcome.kind}: exit {outcome.exit_code}: {outcome.message}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

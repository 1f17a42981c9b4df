"""`python -m PACKAGE --self-test`: the golden answers and raw latencies of this machine, as JSON on standard output."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Optional, Sequence

from . import constants
from .model import ModelTampered, golden_holds, load


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the self-test and return 0, or 1 where the model is not the measured one or answers otherwise."""
    given = _read_arguments(arguments)
    try:
        result = load(threads=given.threads).self_test(runs=given.runs, warmup=given.warmup)
    except ModelTampered as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    if not golden_holds(result):
        model = f"{constants.NAME} {constants.VERSION}"
        sys.stderr.write(f"{model}: expected the golden answers; got others; do not use it on this machine\n")
        return 1
    return 0


def _read_arguments(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description=f"{constants.NAME} {constants.VERSION}; {constants.NOT_MEASURED}.",
    )
    parser.add_argument(
        "--self-test",
        action="store_true",
        required=True,
        help="ask the golden inputs and time inferences; exit code 1 where an answer differs",
    )
    parser.add_argument("--runs", type=_count, default=1000, help="timed inferences (default: %(default)s)")
    parser.add_argument("--warmup", type=_count, default=10, help="untimed ones before (default: %(default)s)")
    parser.add_argument(
        "--threads", type=_count, default=constants.THREADS, help="of one inference (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more; got {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())

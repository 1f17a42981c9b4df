"""`edgeproof keys`: who signs packages."""

import os
from pathlib import Path

from rich.text import Text

from pipeline.durable import writing_in
from pipeline.release.signing import PASSPHRASE_VARIABLE, new_key
from pipeline.verbs.output import console_for_people, write_json


def run_new_key(folder: Path, *, as_json: bool) -> int:
    """Make a key and say where its halves are, and who gets which."""
    with writing_in(folder, "the key"):
        key = new_key(folder, os.environ.get(PASSPHRASE_VARIABLE) or None)
    if as_json:
        write_json(
            {
                "key_id": key.key_id,
                "private": str(key.private),
                "public": str(key.public),
                "is_encrypted": key.is_encrypted,
            }
        )
        return 0
    console = console_for_people(as_json=False)
    protection = (
        "encrypted" if key.is_encrypted else f"not encrypted: set {PASSPHRASE_VARIABLE} and make another for that"
    )
    for line in (
        f"key {key.key_id}",
        f"private: {key.private} ({protection}); keep it to yourself: edgeproof release RECIPE --key {key.private}",
        f"public: {key.public}; app teams check with it: edgeproof verify FILE --key {key.public}; give it to them by "
        "another way than the packages",
    ):
        console.print(Text(line), soft_wrap=True)
    return 0

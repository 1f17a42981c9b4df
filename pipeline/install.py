"""The last step of the chain: the release on its device, tried there on what it answered when it was measured."""

import json
from dataclasses import asdict
from pathlib import Path

from pipeline.durable import write_durably, writing_in
from pipeline.on_device import OnDevice, options_of
from pipeline.publish import Published
from targets.devices.install import Archive, Installed, install_release

INSTALLED_FILE = "installed.json"


def install(published: Published, on_device: OnDevice, folder: Path) -> Installed | None:
    """Install a release on its device and switch to it; None where there is none. Leaves installed.json in `folder`.

    Raises:
        DeviceError: digests, room, permissions, or other answers than recorded: what was current there still is.
    """
    report, release, recording = published.report, published.release, published.recording
    if release is None or recording is None:
        return None
    archive = Archive(release.path, release.sha256, f"{report.recipe}-{report.deployment}", report.version)
    installed = on_device.run.measure(
        "install_release",
        lambda on_progress: install_release(
            on_device.site.device, on_device.deployment.target, options_of(on_device.deployment), archive, recording
        ),
    )
    with writing_in(folder, "what was installed"):
        write_durably(folder / INSTALLED_FILE, (json.dumps(asdict(installed), indent=2) + "\n").encode())
    on_device.run.say(installed_words(installed))
    return installed


def installed_words(installed: Installed) -> str:
    """Return one line: what is current where, since when not, and how its trial went."""
    switch, smoke = installed.switch, installed.smoke
    before = f"before: {switch.before}" if switch.before else "the first"
    answers = "equal to the last bit" if smoke.is_equal else f"within {smoke.largest_difference:.2%} of the largest"
    return (
        f"{installed.device}: {switch.version} is current ({before}); smoke test: {smoke.samples} samples, {answers}: "
        f"{installed.path}"
    )

"""The last step of the chain: the release on its device, tried there on what it answered when it was measured."""

import json
from dataclasses import asdict
from pathlib import Path

from pipeline.durable import write_durably, writing_in
from pipeline.on_device import OnDevice, options_of
from pipeline.publish import Published
from targets.devices.install import Archive, Installed, Recording, install_release

INSTALLED_FILE = "installed.json"
SMOKE_SAMPLES = 8
"""Test images whose answers are recorded."""
TOLERANCE = 0.01
"""Of the largest recorded answer: the same file on the same device answers the same, but for a GPU's order of sums."""


def install(published: Published, on_device: OnDevice, folder: Path) -> Installed | None:
    """Install a release on its device and switch to it; None where there is none. Leaves installed.json in `folder`.

    Raises:
        DeviceError: digests, room, permissions, or other answers than recorded: what was current there still is.
    """
    report, release = published.report, published.release
    if release is None:
        return None
    archive = Archive(release.path, release.sha256, f"{report.recipe}-{report.deployment}", report.version)
    recording = record(on_device)
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


def record(on_device: OnDevice) -> Recording:
    """Ask the compiled model on the device about the first test images."""
    images = on_device.task.load().test.images[:SMOKE_SAMPLES]
    feeds = {on_device.model.input.name: images}
    processing = on_device.task.normalization.processing().fed_to(on_device.model.input)
    options, target = options_of(on_device.deployment), on_device.deployment.target
    outputs = on_device.site.device.infer(target, on_device.compiled.path, options, feeds, processing=processing)
    return Recording(feeds, outputs, processing, TOLERANCE)


def installed_words(installed: Installed) -> str:
    """Return one line: what is current where, since when not, and how its trial went."""
    switch, smoke = installed.switch, installed.smoke
    before = f"before: {switch.before}" if switch.before else "the first"
    answers = "equal to the last bit" if smoke.is_equal else f"within {smoke.largest_difference:.2%} of the largest"
    return (
        f"{installed.device}: {switch.version} is current ({before}); smoke test: {smoke.samples} samples, {answers}: "
        f"{installed.path}"
    )

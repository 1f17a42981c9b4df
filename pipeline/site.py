"""A device that has answered: where a chain compiles and measures."""

from dataclasses import dataclass

from targets.devices.device import Device, DeviceFacts


@dataclass(frozen=True)
class Site:
    """A probed device: counts by what it says of itself, never by its name."""

    device: Device
    facts: DeviceFacts

    def fingerprint(self) -> str:
        """Return the digest of processor, system and runtime version."""
        return self.facts.digest

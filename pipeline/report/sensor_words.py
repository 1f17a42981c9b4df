"""Sensors and energy in words, for the terminal and the page alike. Rule: figures in, sentences out."""

from pipeline.report.sensor_figures import ChannelFigures, EnergyFigures, SensorFigures
from pipeline.report.wording import figure

WATCHED = ("clock", "temperature", "cooling", "throttling", "pressure", "swapping")
"""Quantities that people are told of first; the report has all."""


def energy_words(energy: EnergyFigures) -> str:
    """Return the energy of one inference as one sentence, or why it is not known."""
    if energy.above_idle_mj is None or energy.total_mj is None:
        return f"energy: unavailable: {energy.unavailable}"
    interval = ""
    if energy.interval_mj is not None:
        interval = f" (95 %: {figure(energy.interval_mj[0], 'mJ')} to {figure(energy.interval_mj[1], 'mJ')})"
    words = (
        f"energy: {figure(energy.above_idle_mj, 'mJ')} an inference above idle{interval}, "
        f"{figure(energy.total_mj, 'mJ')} in all; {energy.source}: {', '.join(energy.rails)}"
    )
    return f"{words}; {energy.note}" if energy.note else words


def sensor_lines(sensors: SensorFigures) -> list[str]:
    """Return what the sensors said, a line for each quantity, those that are unavailable in one."""
    lines = []
    for quantity in WATCHED:
        same = [channel for channel in sensors.channels if channel.quantity == quantity]
        if same:
            lines.append(f"{quantity}: {'; '.join(f'{each.name} {channel_words(each)}' for each in same)}")
    missing = [f"{name} ({why})" for name, why in sensors.unavailable.items() if name in WATCHED]
    if missing:
        lines.append(f"unavailable: {'; '.join(missing)}")
    return [*lines, *(f"changed meanwhile: {name} {pair}" for name, pair in sensors.changed.items())]


def channel_words(channel: ChannelFigures) -> str:
    """Return the readings of one sensor: by how much a counter grew, else from the lowest to the highest."""
    if channel.increase is not None:
        return f"+{channel.increase:,.6g} {channel.unit}"
    limit = f" of {channel.limit:,.6g}" if channel.limit is not None else ""
    if channel.lowest == channel.highest:
        return f"{channel.lowest:,.6g}{limit} {channel.unit}"
    return f"{channel.lowest:,.6g} to {channel.highest:,.6g}{limit} {channel.unit}"

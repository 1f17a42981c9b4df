"""A board's sensors as files that move: for an emulated device, whose /sys is a folder of this machine.

Run: .venv/bin/python benchmarks/fake_board.py ROOT [--process qemu-aarch64] [--hot-after 10] [--seconds 600]
     .venv/bin/python benchmarks/fake_board.py ROOT --remove

ROOT is the root file system of the device: below ROOT/sys appear an INA3221 (2 W, and 3 W more for each busy core of
the processes whose command line holds --process), a thermal zone that warms while they work, and a clock that falls
to 60 % once they have worked for --hot-after seconds, with its cooling device at step 2. Ctrl-C leaves the last values.
Nothing here measures: it shows that what a board says of itself ends up in a report.
"""

import argparse
import os
import shutil
import time
from pathlib import Path

PERIOD_S = 0.05
IDLE_MW, BUSY_MW = 2000.0, 3000.0
MOST_KHZ, LEAST_KHZ = 2_000_000, 1_200_000
COOL_C, WARMING_C_A_S, HOT_C = 41.0, 1.5, 85.0
FOLDERS = ("sys/class/hwmon", "sys/class/thermal", "sys/devices/system/cpu/cpufreq")


def main() -> None:
    """Write the files again and again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--process", default="qemu-aarch64")
    parser.add_argument("--hot-after", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--remove", action="store_true")
    given = parser.parse_args()
    if given.remove:
        for folder in FOLDERS:
            shutil.rmtree(given.root / folder, ignore_errors=True)
        return
    worked_s, before, then = 0.0, busy_seconds(given.process), time.monotonic()
    end = then + given.seconds
    while then < end:
        time.sleep(PERIOD_S)
        now, busy = time.monotonic(), busy_seconds(given.process)
        # A process that ended takes its seconds with it: then nothing was done that can be told.
        cores = min(max(busy - before, 0.0) / (now - then), float(os.cpu_count() or 1))
        worked_s += cores * (now - then)
        before, then = busy, now
        for name, text in files_of(cores, worked_s, is_hot=worked_s > given.hot_after).items():
            write(given.root / name, text)


def files_of(cores: float, worked_s: float, *, is_hot: bool) -> dict[str, str]:
    """Return what the board says while `cores` work, by the name of the file."""
    hwmon, thermal = "sys/class/hwmon/hwmon0", "sys/class/thermal"
    policy = "sys/devices/system/cpu/cpufreq/policy0"
    return {
        f"{hwmon}/name": "ina3221",
        f"{hwmon}/in1_label": "VDD_IN",
        f"{hwmon}/in1_input": "5000",
        f"{hwmon}/curr1_input": f"{(IDLE_MW + BUSY_MW * cores) / 5:.0f}",
        f"{thermal}/thermal_zone0/type": "cpu-thermal",
        f"{thermal}/thermal_zone0/temp": f"{1000 * min(COOL_C + WARMING_C_A_S * worked_s, HOT_C):.0f}",
        f"{thermal}/thermal_zone0/trip_point_0_type": "passive",
        f"{thermal}/thermal_zone0/trip_point_0_temp": "80000",
        f"{thermal}/cooling_device0/type": "cpufreq-cpu0",
        f"{thermal}/cooling_device0/cur_state": "2" if is_hot else "0",
        f"{policy}/cpuinfo_max_freq": str(MOST_KHZ),
        f"{policy}/scaling_max_freq": str(MOST_KHZ),
        f"{policy}/scaling_min_freq": "600000",
        f"{policy}/scaling_governor": "performance",
        f"{policy}/scaling_cur_freq": str(LEAST_KHZ if is_hot else MOST_KHZ),
    }


def write(path: Path, text: str) -> None:
    """Write a file so that no reader sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_text(f"{text}\n")
    partial.replace(path)


def busy_seconds(process: str) -> float:
    """Return the processor time of all processes whose command line holds `process`."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if process.encode() in (folder / "cmdline").read_bytes():
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        except (OSError, IndexError):
            continue  # it ended meanwhile
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()

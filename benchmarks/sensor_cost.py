"""What reading sensors costs the latency that is sampled meanwhile.

Run it alone on a machine: `PYTHONPATH=. .venv/bin/python benchmarks/sensor_cost.py [--seconds 2] [--rounds 5]`.
In turns, a busy wait of 1 ms and a small matrix product are timed without and with the sampler, at the runner's own
interval and at shorter ones, on this machine's sensors and on files that stand for a Jetson's (about twenty sensors).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from pipeline.measuring.quantiles import percentile_of
from targets.runner.sensors_files import Sensors, find_sensors
from targets.runner.sensors_sampler import INTERVAL_S, WATCHED, Sampler
from targets.runner.timing import sample_latency, warm_up
from tests.targets.board_files import ORIN_NANO, write_board

PERCENTILES = (50, 90, 99, 99.9)


def make_work() -> dict[str, Callable[[], object]]:
    """Return what is timed: one that holds Python's lock, and one that gives it up as runtimes do."""
    random = np.random.default_rng(0)
    first, second = random.random((2, 192, 192)).astype(np.float32)

    def wait() -> None:
        end = time.perf_counter_ns() + 1_000_000
        while time.perf_counter_ns() < end:
            pass

    return {"busy wait 1 ms": wait, "matrix product": lambda: np.matmul(first, second)}


def time_reading(sensors: Sensors) -> float:
    """Return the processor time of one reading of all sensors, in us."""
    start = time.process_time()
    for _ in range(300):
        for sensor in sensors.found:
            sensor.read()
    return (time.process_time() - start) / 300 * 1e6


def measure(seconds: float, rounds: int) -> list[dict[str, object]]:
    """Return a row for each workload, set of sensors and interval; the first of each workload is without sampler."""
    with tempfile.TemporaryDirectory() as folder:
        places = {"this machine": Path("/"), "files of a Jetson": write_board(Path(folder), ORIN_NANO)}
        found = {name: find_sensors(root, WATCHED) for name, root in places.items()}
        plans = [("none", 0.0), *((name, every) for name in found for every in (INTERVAL_S, 0.05, 0.01))]
        rows: list[dict[str, object]] = []
        for name, work in make_work().items():
            samples: dict[tuple[str, float], list[np.ndarray]] = {plan: [] for plan in plans}
            warm_up(work, 1.0)
            for turn in range(rounds):
                for plan in (*plans[turn % len(plans) :], *plans[: turn % len(plans)]):
                    where, every_s = plan
                    with Sampler(found[where], every_s) if every_s else nullcontext():
                        samples[plan].append(sample_latency(work, 10**6, seconds))
            for (where, every_s), taken in samples.items():
                ms = np.concatenate(taken) / 1e6
                row: dict[str, object] = {"work": name, "sensors": where, "interval_s": every_s or None, "n": ms.size}
                row |= {f"p{each}_ms": round(percentile_of(ms, each), 5) for each in PERCENTILES}
                row["reading_us"] = round(time_reading(found[where]), 1) if every_s else None
                row["num_sensors"] = len(found[where].found) if every_s else 0
                rows.append(row)
    return rows


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = measure(options.seconds, options.rounds)
    columns = list(rows[0])
    print("  ".join(f"{column:>14}" for column in columns))
    for row in rows:
        print("  ".join(f"{row[column]!s:>14}" for column in columns))
    path = Path("build/bench/sensor_cost.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

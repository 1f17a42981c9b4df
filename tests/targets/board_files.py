"""A folder of files that stands for a board's /sys and /proc."""

from pathlib import Path

ORIN_NANO = {
    "sys/class/hwmon/hwmon0/name": "ina3221",
    "sys/class/hwmon/hwmon0/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon0/in1_input": "5000",
    "sys/class/hwmon/hwmon0/curr1_input": "983",
    "sys/class/hwmon/hwmon0/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon0/in2_input": "4992",
    "sys/class/hwmon/hwmon0/curr2_input": "90",
    "sys/class/hwmon/hwmon0/in3_label": "NC",
    "sys/class/hwmon/hwmon0/in3_input": "0",
    "sys/class/hwmon/hwmon0/curr3_input": "0",
    "sys/class/hwmon/hwmon0/in4_input": "12",  # a shunt's voltage
    "sys/class/hwmon/hwmon1/name": "soctherm_oc",
    "sys/class/hwmon/hwmon1/oc1_event_cnt": "0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "46968",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "104500",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "passive",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "99000",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal",
    "sys/class/thermal/thermal_zone1/temp": "-256000",  # switched off
    "sys/class/thermal/thermal_zone2/type": "PMIC-Die",
    "sys/class/thermal/thermal_zone2/temp": "100000",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/class/thermal/cooling_device1/type": "pwm-fan",
    "sys/class/thermal/cooling_device1/cur_state": "3",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1510400",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1510400",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "729600",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1510400",
    "sys/devices/system/cpu/cpufreq/policy10/scaling_cur_freq": "729600",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "729600",
    "sys/class/devfreq/17000000.gpu/cur_freq": "624750000",
    "sys/class/devfreq/17000000.gpu/max_freq": "624750000",
    "sys/class/devfreq/17000000.gpu/governor": "nvhost_podgov",
    "sys/class/devfreq/1d84000.ufshc/cur_freq": "300000000",
    "proc/pressure/cpu": "some avg10=1.25 avg60=0.80 avg300=0.20 total=123456\nfull avg10=0.00",
    "proc/loadavg": "0.31 0.20 0.10 1/234 5678",
    "proc/vmstat": "nr_free_pages 1\npswpin 3\npswpout 4",
    "proc/stat": "cpu  100000 0 100000 900000 0 0 0 50 0 0\ncpu0 1 0 1 9 0 0 0 0 0 0",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
}
"""An Orin Nano under JetPack 6, as far as sensors are concerned."""


def write_board(root: Path, files: dict[str, str]) -> Path:
    """Write the files below `root` and return it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root

"""`nas doctor`"""

import sys
from dataclasses import asdict
from pathlib import Path

from nas.cli.options import DataOption, JsonOption
from nas.cli.output import print_json

HELP = """Say what this machine offers: versions, devices, precision and why, storage, disk, data found."""


def command(data: DataOption = None, as_json: JsonOption = False) -> None:
    from nas.report.machine import examine

    health = examine(data or Path("data"))
    if as_json:
        print_json(asdict(health))
    else:
        print(f"python    {health.python}, {health.cores} cores, {health.machine}")
        print("packages  " + ", ".join(f"{name} {version}" for name, version in health.packages.items()))
        if health.git:
            print(f"checkout  {health.git}")
        for i, device in enumerate(health.devices):
            chosen = "  ← auto" if i == 0 else ""
            print(f"device    {device.name}: {device.model}, {device.precision}, because {device.reason}{chosen}")
        system = f" on {health.file_system}" if health.file_system else ""
        print(f"storage   {health.studies}{system}, SQLite {health.sqlite}; studies: {', '.join(health.studies_found) or 'none'}")
        print(f"cache     {health.cache}")
        print("disk      " + ", ".join(f"{left / 1e9:.0f} GB free in {path}" for path, left in health.free_bytes.items()))
        print("data      " + ", ".join(f"{name} ({where})" for name, where in health.data_found.items()))
        print("spaces    " + ", ".join(health.spaces))
    for problem in health.problems:
        print(f"Problem:  {problem}", file=sys.stderr)
    if health.problems:
        sys.exit(1)

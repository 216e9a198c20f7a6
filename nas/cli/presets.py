"""`nas presets`"""

from dataclasses import asdict

from nas.cli.options import JsonOption
from nas.cli.output import print_json

HELP = """List the reported networks that are built in, with their cost and reported accuracy."""


def command(as_json: JsonOption = False) -> None:
    from nas.report.show import report_presets
    from nas.report.words import count_text

    rows = report_presets()
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print(f"{'preset':22s} {'blocks':10s} {'channels':17s} {'parameters':>10s} {'MACs':>6s}  budget  reported accuracy")
    for row in rows:
        blocks = "-".join(str(n) for n in row.blocks)
        channels = "-".join(str(n) for n in row.channels)
        fits = "fits" if row.fits else "over"
        cost = f"{row.params:10,} {count_text(row.macs):>6s}"
        print(f"{row.name:22s} {blocks:10s} {channels:17s} {cost}  {fits:6s}  {row.accuracy:.2%} {row.measured_on}")

"""What `nas search --estimate` prints."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.study.estimate import Estimate


def estimate_lines(estimate: "Estimate") -> list[str]:
    from nas.report.words import count_text, time_text

    workers, devices = len(estimate.devices), sorted(set(estimate.devices))
    where = f"{workers} on {', '.join(devices)}, {estimate.threads} thread{'s' * (estimate.threads != 1)} each"
    lines = [
        f"study     {estimate.study}, {estimate.trials} networks to train; it is not founded",
        f"data      {estimate.train_images:,} train, {estimate.validation_images:,} choose",
        f"workers   {where}, in {estimate.precision}",
        "",
        "An epoch of networks that fit, at percentiles of their multiply-adds (50 %: the middle one):",
        f"{'':>5s} {'parameters':>12s} {'MACs':>6s} {'batch':>6s} {'epoch':>9s}  network",
    ]
    for one in estimate.networks:
        seconds = f"{one.epoch:.3g} s"
        cost = f"{one.params:12,} {count_text(one.macs):>6s} {one.batch_size:6d} {seconds:>9s}"
        lines.append(f"{one.percentile:3d} % {cost}  {one.architecture}")
    lines += ["", f"pruning   {estimate.expected_epochs:.1f} of {estimate.epochs} epochs a network; {estimate.pruning}"]
    if workers > 1:
        lines.append(f"alone     each was timed alone, on {estimate.devices[0]}: workers slow each other down")
    whole = estimate.whole
    spread = f"from {time_text(whole.low)}, to {time_text(whole.high)} should the sampler come to prefer the slow ones"
    lines.append(f"search    about {time_text(whole.likely)}: {spread}")
    return lines

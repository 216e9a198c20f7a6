"""`nas search`"""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import print_json
from nas.cli.options import JsonOption, LogOption, QuietOption, command
from nas.specs import SearchSpec
from nas.specs.options import Given, said_again

if TYPE_CHECKING:
    from nas.study.estimate import Estimate
    from nas.study.run import SearchResult


@command(
    "search",
    help="""Draw networks, prune those over budget before training, train the rest with early pruning.

The same command run again goes on where it stopped: --trials counts the trained networks of all runs of a study.
""",
)
def search(
    given: Given[SearchSpec],
    *,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say how long it would take, from some timed steps, and begin nothing.")
    ] = False,
    log: LogOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    spec = given.build()
    from nas.display.terminal import TerminalDisplay

    if estimate:
        from nas.study.estimate import estimate_search

        with TerminalDisplay(quiet=quiet) as display:
            estimated = estimate_search(spec, display)
        print_json(estimated) if as_json else print("\n".join(estimate_lines(estimated)))
        return
    from nas.study.run import run_search

    with TerminalDisplay(quiet=quiet, log=log) as display:
        result = run_search(spec, display)
    if as_json:
        print_json(_as_data(result))
    else:
        # What a study does not remember has to be said again.
        again = f"nas search --study {result.plan.paths.name}{said_again(spec)}"
        _print_result(result, again if log is None else f"{again} --log {log}")
    if result.interrupted:
        sys.exit(130)


def estimate_lines(estimate: "Estimate") -> list[str]:
    from nas.report.words import count_text, time_text

    workers, devices = len(estimate.devices), sorted(set(estimate.devices))
    where = f"{workers} on {', '.join(devices)}, {estimate.threads} thread{'s' * (estimate.threads != 1)} each"
    lines = [
        f"study     {estimate.study}, {estimate.trials} networks to train; it is not founded",
        f"data      {estimate.train_images:,} train, {estimate.validation_images:,} choose",
        f"workers   {where}, in {estimate.precision}",
        "",
        "An epoch of networks that fit, with its share of validation, at percentiles of their MACs (50 %: the middle one):",
        f"{'':>5s} {'parameters':>12s} {'MACs':>6s} {'batch':>6s} {'epoch':>9s} {'validation':>10s}  network",
    ]
    for one in estimate.networks:
        seconds = f"{one.epoch:.3g} s" if one.epoch < 90 else time_text(one.epoch)
        cost = (
            f"{one.params:12,} {count_text(one.macs):>6s} {one.batch_size:6d} {seconds:>9s} {one.validation / one.epoch:>10.0%}"
        )
        lines.append(f"{one.percentile:3d} % {cost}  {one.architecture}{'' if one.timed else '  (not timed: by its MACs)'}")
    lines += ["", f"pruning   {estimate.expected_epochs:.1f} of {estimate.epochs} epochs a network; {estimate.pruning}"]
    if workers > 1:
        lines.append(f"alone     each was timed alone, on {estimate.devices[0]}: workers slow each other down")
    whole = estimate.whole
    spread = f"from {time_text(whole.low)}, to {time_text(whole.high)} should the sampler come to prefer the slow ones"
    lines.append(f"search    about {time_text(whole.likely)}: {spread}")
    return lines


def _as_data(result: "SearchResult") -> dict[str, Any]:
    progress = result.progress
    return {
        "study": result.plan.paths.name,
        "trained": progress.trained,
        "counts": {outcome: count for outcome, count in progress.counts.items() if count},
        "best": progress.best,
        "finalists": [{**asdict(one), "mean": one.mean, "deviation": one.deviation} for one in result.finalists],
        "interrupted": result.interrupted,
        "exhausted": result.exhausted,
    }


def _print_result(result: "SearchResult", again: str) -> None:
    """`again`: the command that goes on, but for its --trials."""
    from nas.report.words import count_draws, finalist_text, row_text, trained_text

    progress, name = result.progress, result.plan.paths.name
    drawn, over, unended = count_draws(progress.counts), progress.counts["over_budget"], progress.counts["running"]
    print(f"{trained_text(progress.counts, f' in study {name}')}.", end=" ")
    later = f"; {unended} {'has' if unended == 1 else 'have'} not ended" if unended else ""
    print(f"{over} of {drawn} draws ({over / drawn:.0%}) were over budget and never trained{later}." if drawn else "")
    if progress.best is not None:
        print(f"Best of the search: {row_text(progress.best)}")
    for rank, finalist in enumerate(result.finalists):
        print(f"{'Winner' if rank == 0 else '      '}  {finalist_text(finalist)}")
    if result.interrupted:
        print(f"Suspended. To go on:  {again} --trials {progress.goal}")
        return
    if result.exhausted:
        print(f"Nothing new was left to draw. Widen the ranges of the space and search on from here:  --warm-start study:{name}")
    if progress.best is None:
        print(f"No network has completed its training yet. To go on:  {again} --trials {progress.goal + 10}")
        return
    goal = progress.goal if progress.trained < progress.goal else progress.goal * 2
    more = "" if result.exhausted else f"   or more trials:  {again} --trials {goal}"
    print(f"Next:  nas retrain best --study {name}{more}")
    print(f"All of it on one page:  nas report --study {name}")
    if result.plan.settings.study.objective == "front":
        print(f"The front of accuracy against parameters:  nas best --study {name}")

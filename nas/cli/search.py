"""`nas search`"""

import sys
from dataclasses import asdict, replace
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
    "Search for the best network under a budget. The same command resumes a search.",
    "nas search --space digits --dataset digits --trials 12",
    "nas search --data my-images --max-params 1M --timeout 2h",
)
def search(
    given: Given[SearchSpec],
    *,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Estimate the time from a few timed steps; start nothing.")
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

        def resuming(spec: SearchSpec) -> str:
            """With the options that the study does not store."""
            again = f"nas search --study {result.plan.paths.name}{said_again(spec)}"
            return again if log is None else f"{again} --log {log}"

        _print_result(result, resuming(spec), resuming(replace(spec, flop=spec.flop and 2 * spec.flop)))
    if result.interrupted:
        sys.exit(130)


def estimate_lines(estimate: "Estimate") -> list[str]:
    from nas.report.words import count_text, time_text

    workers, devices = len(estimate.devices), sorted(set(estimate.devices))
    where = f"{workers} on {', '.join(devices)}, {estimate.threads} thread{'s' * (estimate.threads != 1)} each"
    lines = [
        f"study     {estimate.study}, {estimate.trials} networks to train; it is not created",
        f"data      {estimate.train_images:,} training images, {estimate.validation_images:,} validation images",
        f"workers   {where}, in {estimate.precision}",
        "",
        "Time of an epoch and its share of validation, for networks that fit (by percentiles of their MACs):",
        f"{'':>5s} {'parameters':>12s} {'MACs':>6s} {'batch':>6s} {'epoch':>9s} {'validation':>10s}  network",
    ]
    for one in estimate.networks:
        seconds = f"{one.epoch:.3g} s" if one.epoch < 90 else time_text(one.epoch)
        cost = (
            f"{one.params:12,} {count_text(one.macs):>6s} {one.batch_size:6d} {seconds:>9s} {one.validation / one.epoch:>10.0%}"
        )
        lines.append(f"{one.percentile:3d} % {cost}  {one.architecture}{'' if one.timed else '  (estimated from its MACs)'}")
    lines += [
        "",
        f"pruning   {estimate.expected_epochs:.1f} of {estimate.epochs} epochs per network on average; {estimate.pruning}",
    ]
    if workers > 1:
        lines.append(f"note      each network was timed alone on {estimate.devices[0]}; parallel workers are each slower")
    whole = estimate.whole
    spread = f"from {time_text(whole.low)}, up to {time_text(whole.high)} if the sampler prefers slow networks"
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


def _print_result(result: "SearchResult", again: str, longer: str) -> None:
    """`again`: the command that resumes; `longer`: that continues, with more compute if it was limited. Both without --trials."""
    from nas.config import flop_word
    from nas.report.words import count_draws, finalist_text, row_text, trained_text

    progress, name = result.progress, result.plan.paths.name
    drawn, over, unended = count_draws(progress.counts), progress.counts["over_budget"], progress.counts["running"]
    print(f"{trained_text(progress.counts, f' in study {name}')}.", end=" ")
    later = f"; {unended} {'is' if unended == 1 else 'are'} unfinished" if unended else ""
    print(f"{over} of {drawn} candidates ({over / drawn:.0%}) were over budget and not trained{later}." if drawn else "")
    if progress.best is not None:
        print(f"Best of the search: {row_text(progress.best)}")
    for rank, finalist in enumerate(result.finalists):
        print(f"{'Winner' if rank == 0 else '      '}  {finalist_text(finalist)}")
    if result.interrupted:
        print(f"Suspended. To resume:  {again} --trials {progress.goal}")
        return
    if result.exhausted:
        print(
            "The space has no new candidates. Widen its ranges, then:  "
            f"nas search --space FILE --study NEW --warm-start study:{name}"
        )
    if progress.best is None:
        print(f"No completed trial yet. To continue:  {longer} --trials {progress.goal + 10}")
        return
    goal = progress.goal if progress.trained < progress.goal else progress.goal * 2
    more = "" if result.exhausted else f"   or continue:  {longer} --trials {goal}"
    final = result.plan.settings.study.final_compute
    compute = "" if final is None else f" --compute {flop_word(final)}"
    print(f"Next:  nas retrain best --study {name}{compute}{more}")
    print(f"Report:  nas report --study {name}")
    if result.plan.settings.study.objective == "front":
        print(f"Accuracy against parameters:  nas best --study {name}")

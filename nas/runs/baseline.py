"""`nas baseline`: measures known networks, trains the missing ones in workers with the recipe of a network of the study, and
evaluates them. They do not belong to the study's networks: no command submits or exports them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nas.config import TrainConfig
from nas.data.loader import mix_seed
from nas.device import with_its_threads
from nas.errors import ConfigError, NasError, StudyError, one_line
from nas.files import sha256_of, write_whole
from nas.foreign.known import KnownNetwork, build, measure, named, quiet
from nas.interrupts import Stop
from nas.jobs.job import Job
from nas.jobs.placement import device_group
from nas.models.user_code import blaming
from nas.paths import StudyPaths, TrialPaths
from nas.runs.card import HeldOut
from nas.runs.comparison import (
    BaselineCard,
    Comparison,
    Definition,
    begun_runs,
    find_comparisons,
    read_baseline,
    write_baseline,
)
from nas.runs.context import TrainingContext, locked, open_context
from nas.runs.evaluation import judge_held_out, judge_test
from nas.runs.finish import begin_card, clear_away, keep_weights, take_weights
from nas.runs.plan import ByRecipe, Plan, another_recipe, asked_subject, by_epochs, run_name, tta_by
from nas.runs.train import Outcome, TrainingDisplay, prepared_workers, train_all
from nas.specs import BaselineSpec
from nas.study.settings import StudySettings, read_settings

OTHER_RUN = "wait for it, or train another network: --seeds N,M, --epochs N, --recipe NAME"


@dataclass(frozen=True)
class BaselinePlan(Plan):
    """Trains a known network, with the seed that the retraining of the study's network in `like` uses."""

    definition: Definition

    @property
    def train(self) -> TrainConfig:
        return self.definition.train

    def begin(self, ctx: TrainingContext) -> None:
        write_whole(self.run.begun, (self.definition.to_json() + "\n").encode())

    def job(self, ctx: TrainingContext) -> Job:
        train = self.train.canonical()
        # A key that came later is left out at its default, so that checkpoints from before it are continued.
        text = train.model_dump_json(indent=2, exclude={"hardest"} if train.hardest == 1 else None)
        recipe = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._job(self.definition.network, f"{self.definition.network.digest} {recipe}", ctx)


@dataclass(frozen=True)
class Done:
    runs: tuple[TrialPaths, ...]  # Ended ones, diverged ones included, in the order of the request
    comparison: Comparison | None  # With the study's own networks that were trained alike; None before a training has ended
    failures: dict[str, str]  # By run. A diverged run is a result, not a failure
    suspended: int  # Runs that resume with the same command


@with_its_threads
def train_baselines(
    spec: BaselineSpec,
    on_plan: Callable[[Sequence[BaselinePlan], Sequence[BaselinePlan], TrainingContext], None],
    display: TrainingDisplay,
    stop: Stop,
) -> Done:
    """Resumes an earlier run of the command. Raises NasError; problems of a network are reported before any is trained."""
    settings = read_settings(spec.paths)
    alike = _find_alike(spec, settings)
    plans = _make_plans(spec, alike, settings, _find_networks(spec, alike, settings, display.on_printed))
    pending, outcome = [plan for plan in plans if not plan.has_ended], Outcome()

    def announce(plans: Sequence[BaselinePlan], pending: Sequence[BaselinePlan], ctx: TrainingContext) -> None:
        on_plan(plans, pending, ctx)
        for text in filter(None, [_left_out(alike), *_changed(spec.paths, pending)]):
            display.note(text)

    if pending:
        devices = device_group(spec.device, None, threads=spec.threads)
        with prepared_workers(spec.paths, devices, pending) as executor:
            ctx = open_context(spec.base, devices, display.decoding)
            if ctx.dataset.test is None and ctx.selected.hold_out is None:
                raise ConfigError(
                    "the data set has no labelled test images, so the networks cannot be evaluated",
                    hint="use --hold-out 0.1 to hold out training images, also in nas retrain",
                )
            with locked([plan.run.folder for plan in pending], command="nas baseline", hint=OTHER_RUN):
                judge = partial(_finish, ctx=ctx)
                outcome = train_all(plans, ctx, executor, judge, announce, display, stop, keep_diverged=True)
    ended = [plan.run for plan in plans if plan.has_ended]
    return Done(tuple(ended), _comparison(spec.paths, ended), outcome.failures, outcome.suspended)


def _changed(paths: StudyPaths, pending: Sequence[BaselinePlan]) -> list[str]:
    begun, said = [(run, Definition.from_file(run.begun).network) for run in begun_runs(paths)], []
    for network in {plan.definition.network.name: plan.definition.network for plan in pending}.values():
        code = network.files, network.text
        others = [run for run, one in begun if one.name == network.name and (one.files, one.text) != code]
        if others:
            said.append(
                f"the code of {network.name} has changed since {others[-1].folder.name}, which is kept; the new code is "
                "trained in addition"
            )
    return said


def _comparison(paths: StudyPaths, ended: Sequence[TrialPaths]) -> Comparison | None:
    """The comparison that contains these runs."""
    runs = {run.folder.name for run in ended}
    found = [one for one in find_comparisons(paths) if any(runs & set(row.runs) for row in one.known)]
    return found[0].only(runs) if found else None


def _left_out(alike: ByRecipe) -> str | None:
    """The part of the recipe that only networks of nas have, as a sentence."""
    rate = alike.candidate.arch.stochastic_depth
    if alike.recipe.stochastic_depth is None or not rate:
        return None
    return (
        f"with recipe {alike.recipe_name!r} networks of nas also use stochastic depth, here {rate:g}; "
        "other networks have it only if their own code does"
    )


def _find_alike(spec: BaselineSpec, settings: StudySettings) -> ByRecipe:
    """The network and the recipe of `--like`. Raises NasError."""
    try:
        subject = asked_subject(spec.base, settings)
    except StudyError as error:
        if spec.like != "best":
            raise
        raise StudyError(
            error.message, hint="--like preset:resnet-2222-slim trains by that preset's recipe; nas presets shows the names"
        ) from None
    return by_epochs(spec.base, subject, subject.default_epochs)


def _find_networks(
    spec: BaselineSpec, alike: ByRecipe, settings: StudySettings, printed: Callable[[str, str], None]
) -> list[KnownNetwork]:
    """Measures each network, unless all its trainings have ended and its code has not changed. Raises ConfigError with the
    problems of all networks."""
    texts = list(dict.fromkeys(spec.networks))
    if not texts:
        raise ConfigError("name at least one network", hint="nas baseline torchvision:resnet18")
    begun = [Definition.from_file(run.begun).network for run in begun_runs(spec.paths)]
    known = {network.name: network for network in begun if _is_there(network) and network.is_unchanged}
    networks, wrong = [], []
    for text in texts:
        try:
            named(text)
            network = known.get(text)
            if network is None or not all(plan.has_ended for plan in _make_plans(spec, alike, settings, [network])):
                network = measure(text, settings.shape, settings.budget, spec.timeout, printed)
        except NasError as error:
            wrong.append(error)
        else:
            networks.append(network)
    if len(wrong) > 1:
        listed = "\n".join(f"  {error.message}" + (f"\n    ({error.hint})" if error.hint else "") for error in wrong)
        raise ConfigError(f"{len(wrong)} of {len(texts)} networks cannot be trained, so none was trained:\n{listed}")
    if wrong:
        raise wrong[0]
    return list({network.slug: network for network in reversed(networks)}.values())[::-1]  # a network may have several names


def _is_there(network: KnownNetwork) -> bool:
    try:
        named(network.name)
    except ConfigError:  # its file is gone, or the command runs in another folder
        return False
    return True


def _make_plans(
    spec: BaselineSpec, alike: ByRecipe, settings: StudySettings, networks: Sequence[KnownNetwork]
) -> list[BaselinePlan]:
    """All networks with the first seed, then all with the second. Raises StudyError if a run was begun with another recipe."""
    digest, plans = int(alike.candidate.digest, 16), []
    for seed in spec.seeds:
        for network in networks:
            definition = Definition(
                network=network,
                like=alike.subject.title,
                recipe=alike.recipe_name,
                train=alike.candidate.train,
                tta=tta_by(alike.recipe, alike.candidate),
                seed=seed,
                hold_out=spec.hold_out,
                train_subset=spec.train_subset,
            )
            slug, length = f"{network.slug}-like-{alike.subject.slug}", f"{definition.train.epochs}-epochs"
            run = TrialPaths(spec.paths.baselines / run_name(slug, alike.recipe_name, length, seed, spec.base.selection))
            if run.begun.is_file():
                begun = Definition.from_file(run.begun)
                if begun.train.canonical() != definition.train.canonical() or begun.tta != definition.tta:
                    raise another_recipe(run)
            plans.append(BaselinePlan(run, definition.tta, seed, mix_seed(settings.seed, digest, seed), definition))
    return plans


def _finish(plan: BaselinePlan, ctx: TrainingContext) -> None:
    """Finishes a trained run: weights, evaluation, and the card last. This is the run's only evaluation on the official test set.
    Raises NasError, also if the network's code fails."""
    definition, run = plan.definition, plan.run
    weights = take_weights(run, plan.job(ctx).identity)
    model = build(definition.network, ctx.dataset.shape)
    with blaming(named(definition.network.name).file, f"{definition.network.built} fails in its evaluation"), quiet():
        model.load_state_dict(weights)
        held_out, test = _judge(model, plan, ctx)
    keep_weights(run, weights)
    write_baseline(run, BaselineCard(**dict(definition) | begin_card(run, ctx, held_out) | test))
    clear_away(run)


def _judge(model: nn.Module, plan: BaselinePlan, ctx: TrainingContext) -> tuple[HeldOut | None, dict[str, float]]:
    model = model.to(ctx.device)
    if plan.definition.network.channels_last:
        model = model.to(memory_format=torch.channels_last)
    tta = plan.definition.tta
    return judge_held_out(model, tta, ctx), judge_test(model, tta, plan.run, ctx)


def load_baseline(run: TrialPaths) -> tuple[nn.Module, BaselineCard]:
    """The network with its weights, on the CPU, in evaluation mode. Runs the user's file, from its place at the training.

    Raises NasError if a file is missing or was changed.
    """
    card = read_baseline(run)
    file = run.weights
    if not file.is_file() or sha256_of(file) != card.weights_sha256:
        what = "is not the file that this training wrote" if file.is_file() else "is not there"
        raise StudyError(
            f"{file} {what}", hint="restore the folder from a copy, or remove it and train it again with nas baseline"
        )
    model = build(card.network, card.shape)
    try:
        model.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise StudyError(
            f"{file} does not fit {card.network.name}: {one_line(error)}",
            hint=f"install the release of the library that trained it ({run.baseline.name} lists versions under environment), or "
            "remove the folder and train it again with nas baseline",
        ) from None
    return model.eval(), card

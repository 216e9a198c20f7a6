"""`nas submit`, `nas predict`, `nas export`: what is done with a retrained network."""

from nas.cli import pick, print_json
from nas.cli.options import JsonOption, QuietOption, StudyOption, command
from nas.paths import remember_study
from nas.specs import ExportSpec, PredictSpec, SubmitSpec
from nas.specs.options import Given


@command(
    "submit",
    "Predict an unlabelled test set, and write the CSV file to hand in: ID,Labels.",
    "nas submit test.pkl --like sample_submission.csv",
    "nas submit shifted.pkl --adapt-norm",
)
def submit(
    given: Given[SubmitSpec], *, study: StudyOption = None, quiet: QuietOption = False, as_json: JsonOption = False
) -> None:
    from nas.display.terminal import TerminalDisplay
    from nas.predict.submission import submit as predict_test_set
    from nas.runs.select import is_folder, study_of

    paths = study_of(given.run, study)
    with TerminalDisplay(quiet=quiet) as display:
        done = predict_test_set(given.build(paths=paths), display.decoding, display.note)
    if paths is not None and not is_folder(given.run):
        remember_study(paths)
    if as_json:
        print_json(pick(done, "output", "run", "test", "tta", "images", "per_class", "adapted"))
        return
    where = "No study" if paths is None else f"Study {paths.name}"
    print(f"{where}, network {done.run}, test set {done.test}, test-time augmentation {done.tta}")
    classes = [name if name == str(label) else f"{label} {name}" for label, name in enumerate(done.per_class)]
    counted = zip(classes, done.per_class.values(), strict=True)
    print("Predicted  " + ", ".join(f"{name}: {count}" for name, count in counted))
    if done.adapted is not None:
        before, after = done.adapted.confidence_before, done.adapted.confidence_after
        print(
            f"BatchNorm statistics from the test set changed {done.adapted.changed:,} of {done.images:,} predictions; "
            f"mean confidence {before:.1%} before, {after:.1%} after"
        )
    print(f"Wrote {done.output} ({done.images:,} rows)")


@command(
    "predict",
    "Show the most probable classes of images.",
    "nas predict cat.png dog.png",
    "nas predict FOLDER --output classes.csv",
)
def predict(given: Given[PredictSpec], *, study: StudyOption = None, as_json: JsonOption = False) -> None:
    from nas.display.terminal import TerminalDisplay
    from nas.predict.submission import predict_images
    from nas.runs.select import study_of

    with TerminalDisplay() as display:
        guesses = predict_images(given.build(paths=study_of(given.run, study)), display.decoding, display.note)
    if as_json:
        print_json([{"image": guess.image, "classes": dict(guess.classes)} for guess in guesses])
        return
    for guess in guesses:
        print(f"{guess.image}: " + ", ".join(f"{name} {share:.1%}" for name, share in guess.classes))


@command(
    "export",
    """Export a retrained network, and check that the exported file predicts the same.

weights: a folder with model.safetensors, model.json and a model.py that needs only torch. onnx: one file with the preprocessing
inside, for any batch size. onnx-int8: the same in eight bits. torch: a torch.export program.
All take uint8 images (N, H, W, C) and return logits.
""",
    "nas export --format onnx",
    "nas export --format onnx-int8 --tta none",
    "nas export best --format weights --bf16",
)
def export(given: Given[ExportSpec], *, study: StudyOption = None, as_json: JsonOption = False) -> None:
    from nas.display.terminal import TerminalDisplay
    from nas.export.formats import export as write_exported
    from nas.report.words import bytes_text
    from nas.runs.select import study_of

    with TerminalDisplay() as display:
        spec = given.build(paths=study_of(given.run, study))
        done = write_exported(spec, display.decoding, display.note)
    if as_json:
        print_json(done)
        return
    logits = "its logits in float" if done.int8 else "logits"
    print(f"{done.path}  ({bytes_text(done.bytes)}): network {done.run}; {logits} differ by at most {done.difference:.1g}")
    if done.bf16_bytes is not None:
        print(f"model.bf16.safetensors  ({bytes_text(done.bf16_bytes)}): logits differ by at most {done.bf16_difference:.1g}")
        if done.accuracy is not None:
            print(f"Accuracy on the official test set: {done.accuracy:.2%}, in bfloat16 {done.bf16_accuracy:.2%}")
    if (eight := done.int8) is not None:
        print(f"In float: {bytes_text(eight.float_bytes)}; in int8 {eight.float_bytes / done.bytes:.1f} times smaller")
        print(
            f"Accuracy on {eight.images:,} {eight.judged_on}: {eight.accuracy:.2%}, in float {eight.float_accuracy:.2%}; "
            f"{eight.changed:,} predictions differ"
        )
        print(
            f"One image takes {eight.milliseconds:.3g} ms on one CPU thread, in float {eight.float_milliseconds:.3g} ms "
            f"({eight.float_milliseconds / eight.milliseconds:.2f} times as long)"
        )
        for layer, changed in eight.blamed.items():
            print(f"Layer {layer}: in int8 alone it changes {changed} predictions; --keep-float {layer} leaves it in float")

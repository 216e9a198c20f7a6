"""What a paper takes from a study: its figures as files, its tables as Markdown, LaTeX and CSV, a methods paragraph, and one
LaTeX document that includes them all.
"""

from pathlib import Path

import plotly.graph_objects as go

from nas.errors import StudyError
from nas.files import write_whole
from nas.report import experiments
from nas.report.charts import Chart, search_charts
from nas.report.network import list_layers, list_parts
from nas.report.record import FullRecord
from nas.report.render import TEMPLATES
from nas.report.run_charts import run_charts
from nas.report.summary import methods, summary
from nas.report.tables import Table, epochs_table, finalists_table, latex_text, layers_table, stages_table, trials_table

FORMATS = ("png", "svg", "pdf")
WIDTH, PNG_SCALE = 900, 2
MOST_LATEX_ROWS = 40  # of a table in the document, for more do not fit a page; the files hold all


def write_paper(record: FullRecord, folder: Path) -> list[str]:
    """Returns what was written, and what could not be, a sentence each. Raises StudyError where the folder cannot be written."""
    charts = [
        *search_charts(record),
        *(chart for ablation in record.ablations for chart in experiments.ablation_charts(ablation)),
        *([] if record.chosen_run is None else run_charts(record.chosen_run)),
    ]
    tables = _tables(record)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, (table, _) in tables.items():
            for ending, text in (("md", table.markdown()), ("tex", table.latex()), ("csv", table.csv())):
                write_whole(folder / "tables" / f"{name}.{ending}", text.encode())
        paragraph = methods(record)
        write_whole(folder / "methods.txt", f"{paragraph}\n".encode())
        drawn, trouble = _write_figures(charts, folder / "figures")
        write_whole(folder / "paper.tex", _document(record, paragraph, tables, drawn).encode())
    except OSError as error:
        raise StudyError(f"{folder} cannot be written: {error.strerror}", hint="choose another folder with --paper") from None
    said = [f"{folder / 'paper.tex'}  includes {len(drawn)} figures and {len(tables)} tables; it compiles with pdflatex"]
    return said + ([trouble] if trouble else [])


def _tables(record: FullRecord) -> dict[str, tuple[Table, str]]:
    """By file name, with its caption."""
    rows = record.trials
    found: dict[str, tuple[Table, str]] = {}
    if rows:
        best = None if record.best is None else record.best.number
        found["trials"] = trials_table(rows, best, metric=record.metric), "Configurations that were trained."
    if record.finalists:
        found["finalists"] = finalists_table(record.finalists, rows), "The best networks, trained again with several seeds."
    for ablation in record.ablations:
        found |= experiments.ablation_tables(ablation)
    for number, comparison in enumerate(record.comparisons, 1):
        name = "known-networks" + (f"-{number}" if len(record.comparisons) > 1 else "")
        found[name] = experiments.networks_table(comparison), experiments.comparison_caption(comparison)
    if (candidate := record.best_candidate) is not None:
        shape = record.settings.shape
        layers = list_layers(candidate.arch, shape)
        parts = list_parts(candidate.arch, shape, layers)
        found["stages"] = stages_table(parts, shape.classes), "The network's stages beside ResNet-18's (images of 224×224)."
        found["layers"] = layers_table(layers), "The network layer by layer."
    if (run := record.chosen_run) is not None:
        found["epochs"] = epochs_table(run.curve, run.card.metric), "The retraining, epoch by epoch."
    return found


def _write_figures(charts: list[Chart], folder: Path) -> tuple[list[Chart], str | None]:
    """Those that were written, and why the others were not."""
    drawn: list[Chart] = []
    for chart in charts:
        figure = for_print(chart.figure)
        try:
            for ending in FORMATS:
                figure.write_image(folder / f"{chart.id}.{ending}", width=WIDTH, scale=PNG_SCALE if ending == "png" else 1)
        except OSError:
            raise
        except Exception as error:  # kaleido, its browser, or what they lack: of many kinds
            return drawn, _no_browser(error)
        drawn.append(chart)
    return drawn, None


def _no_browser(error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"No figures were written: plotly needs kaleido and Chrome or Chromium for them, and one is missing ({reason}). "
        "Everything else was written.\nNext:  pip install 'nas-under-budget[paper]', install Chromium, or run plotly_get_chrome; "
        "then run the same command"
    )


def for_print(figure: go.Figure) -> go.Figure:
    """Black on white."""
    printed = go.Figure(figure)
    printed.update_layout(paper_bgcolor="#ffffff", plot_bgcolor="#ffffff", font_color="#000000", template="plotly_white")
    return printed


def _document(record: FullRecord, paragraph: str, tables: dict[str, tuple[Table, str]], drawn: list[Chart]) -> str:
    """Tables are as wide as the page at most; a long one is cut, and says so."""
    environment = TEMPLATES.overlay(
        autoescape=False,
        keep_trailing_newline=True,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    environment.filters["tex"] = latex_text
    return environment.get_template("paper.tex").render(
        record=record, summary=summary(record), methods=paragraph, tables=tables, charts=drawn, most_rows=MOST_LATEX_ROWS
    )

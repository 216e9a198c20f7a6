"""How a notebook shows a study, a trial and a run: a heading with a short table, or with a picture of the network."""

from html import escape

from nas.config import ArchConfig, ImageShape
from nas.report.network import draw_network, list_parts
from nas.report.tables import Table


def heading(text: str) -> str:
    return f"<p><b>{escape(text)}</b></p>"


def table(shown: Table) -> str:
    """The best row is bold."""

    def cells(row: tuple[str, ...], tag: str) -> str:
        sides = ("right" if i in shown.numbers else "left" for i in range(len(row)))
        return "".join(f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for side, cell in zip(sides, row, strict=True))

    rows = [f"<tr>{cells(row, 'th' if i == shown.marked else 'td')}</tr>" for i, row in enumerate(shown.rows)]
    return f"<table><thead><tr>{cells(shown.columns, 'th')}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def picture(arch: ArchConfig, shape: ImageShape, params: int) -> str:
    return draw_network(list_parts(arch, shape), params)

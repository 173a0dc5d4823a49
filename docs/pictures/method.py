"""Draws the figures of docs/method.md as SVG: the encoder DSTE, the loss MG-FD and the views of MPCT.

python docs/pictures/method.py
"""

from pathlib import Path

BLUE, ORANGE, GREEN, GREY, INK = "#cfe2f3", "#fbe0c8", "#d3ead9", "#eeeeea", "#1d1d20"


class Drawing:
    """Boxes, arrows and texts, as SVG."""

    def __init__(self, width: int, height: int, title: str):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" '
            'font-family="Helvetica, Arial, sans-serif" font-size="13" role="img">'
            f"<title>{title}</title>"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>'
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        ]

    def text(self, x: float, y: float, text: str, size: int = 13, anchor: str = "middle", color: str = INK) -> None:
        """Write lines around a point."""
        lines = text.split("\n")
        for number, line in enumerate(lines):
            at = y + (number - (len(lines) - 1) / 2) * size * 1.25 + size * 0.35
            self.parts.append(
                f'<text x="{x}" y="{at:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}">{line}</text>'
            )

    def box(self, x: float, y: float, width: float, height: float, text: str, fill: str = GREY) -> None:
        """Draw a box with text in it."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{INK}"/>'
        )
        self.text(x + width / 2, y + height / 2, text)

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draw an arrow along points."""
        line = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(f'<polyline points="{line}" fill="none" stroke="{INK}" marker-end="url(#tip)"/>')

    def matrix(self, x: float, y: float, rows: list[list[float]], cell: float = 13) -> None:
        """Draw a matrix, its entries as shades of grey."""
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                shade = round(255 - 190 * value)
                self.parts.append(
                    f'<rect x="{x + j * cell}" y="{y + i * cell}" width="{cell}" height="{cell}" '
                    f'fill="rgb({shade},{shade},{shade})" stroke="#bbbbbb" stroke-width="0.5"/>'
                )

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text("\n".join([*self.parts, "</svg>\n"]), "utf-8")


def dste(path: Path) -> None:
    """The encoder: two streams of dense layers, and one layer."""
    draw = Drawing(880, 470, "DSTE: the dense spatio-temporal encoder")
    draw.text(20, 22, "The encoder", 15, "start")
    draw.box(20, 75, 110, 70, "clip\nT × M × V × C")
    for y, name, token, fill in (
        (45, "temporal", "T tokens, one a frame", BLUE),
        (125, "spatial", "M·V tokens, one a joint", GREEN),
    ):
        draw.arrow((130, 110), (165, y + 25))
        draw.box(168, y, 165, 50, f"{name} stream\n{token}", fill)
        draw.arrow((333, y + 25), (365, y + 25))
        draw.box(368, y, 165, 50, "embedding + position\ninto size d", fill)
        draw.arrow((533, y + 25), (565, y + 25))
        draw.box(568, y, 120, 50, "dense layers", fill)
        draw.arrow((688, y + 25), (720, y + 25), (735, 100 if y < 100 else 120))
        draw.text(704, y + 13, "max", 11)
    draw.box(738, 80, 120, 60, "embedding\n2d numbers", ORANGE)
    draw.text(20, 212, "One dense layer, for S tokens", 15, "start")
    draw.box(20, 300, 90, 50, "tokens\nS × d")
    rows = (
        (235, "1 × 1 convolution\nalong the channels", "α", BLUE),
        (310, "dense shift: mixed along the tokens,\nexcept every fourth", "", GREEN),
        (385, "unchanged", "", GREEN),
    )
    for y, name, _, fill in rows:
        draw.arrow((110, 325), (140, y + 25))
        draw.box(143, y, 255, 50, name, fill)
        draw.arrow((398, y + 25), (430, y + 25))
        draw.box(433, y, 130, 50, "attention, MLP", fill)
    draw.text(498, 456, "one attention module, shared by the three rows", 11)
    draw.arrow((563, 260), (745, 260), (770, 305))
    draw.text(650, 250, "× α")
    draw.arrow((563, 335), (610, 350))
    draw.arrow((563, 410), (610, 380))
    draw.box(613, 340, 70, 50, "mean", GREEN)
    draw.arrow((683, 365), (745, 345))
    draw.text(722, 380, "× (1 − α)")
    draw.box(748, 308, 50, 40, "+")
    draw.arrow((798, 328), (825, 328))
    draw.text(848, 328, "tokens\nS × d", 11)
    draw.write(path)


def mgfd(path: Path) -> None:
    """The loss: three domains, and what is asked of each."""
    draw = Drawing(880, 400, "MG-FD: multi-grained feature decorrelation")
    draw.text(20, 22, "Each view of a clip is projected three times", 15, "start")
    draw.box(20, 90, 100, 50, "temporal\nd numbers", BLUE)
    draw.box(20, 150, 100, 50, "spatial\nd numbers", GREEN)
    for y, name, size, fill in (
        (40, "temporal", 0.5, BLUE),
        (95, "spatial", 0.5, GREEN),
        (150, "instance: both", 1.0, ORANGE),
    ):
        draw.box(180, y, 150, 42, f"projector,\n{name}", fill)
        draw.arrow((330, y + 21), (370, y + 21))
        draw.box(373, y, 190, 42, f"B clips × D features,\nweight {size}", fill)
    draw.arrow((120, 110), (178, 64))
    draw.arrow((120, 170), (178, 119))
    draw.arrow((120, 118), (178, 166))
    draw.arrow((120, 180), (178, 176))
    draw.text(20, 235, "What the loss asks of the features, in each domain", 15, "start")
    same = [[0.8, 0.1, 0.5, 0.3], [0.2, 0.7, 0.1, 0.6], [0.5, 0.4, 0.9, 0.1]]
    draw.matrix(40, 262, same)
    draw.text(103, 282, "=")
    draw.matrix(115, 262, same)
    draw.text(105, 345, "similarity, × 5\nthe views of a clip\nhave the same features", 12)
    draw.matrix(335, 262, [[0.9, 0.1, 0.3, 0.6], [0.1, 0.8, 0.9, 0.2], [0.5, 0.3, 0.1, 0.9]])
    draw.parts.append(f'<path d="M320 262v39M316 268l4 -6l4 6M316 295l4 6l4 -6" fill="none" stroke="{INK}"/>')
    draw.text(361, 345, "variance, × 5\neach feature spreads over\nthe batch: deviation of 1", 12)
    size = 5
    draw.matrix(590, 255, [[1.0 if i == j else 0.35 for j in range(size)] for i in range(size)], 11)
    draw.arrow((655, 283), (690, 283))
    draw.matrix(700, 255, [[1.0 if i == j else 0.0 for j in range(size)] for i in range(size)], 11)
    draw.text(673, 345, "autocovariance, × 1\ndifferent features\nsay different things", 12)
    draw.write(path)


def mpct(path: Path) -> None:
    """The training: views and modalities of one recording."""
    draw = Drawing(880, 330, "MPCT: multi-perspective consistency training")
    draw.box(20, 130, 105, 60, "one recording\nof any length")
    names = (
        "view 1: a part of 10 to 100 %,\nresized to 64 frames",
        "view 2: another part, sheared",
        "view 3: with joints distorted",
        "view 4: with joints zeroed",
    )
    for number, name in enumerate(names):
        y = 20 + 70 * number
        draw.arrow((125, 160), (160, y + 25))
        draw.box(163, y, 205, 50, name, BLUE)
        draw.arrow((368, y + 25), (405, 160))
    draw.box(408, 120, 130, 80, "the same\nencoder", GREY)
    for y, name in ((45, "all modalities, fused"), (105, "joint"), (165, "motion"), (225, "bone")):
        draw.arrow((538, 160), (575, y + 21))
        draw.box(578, y, 150, 42, name, GREEN if y > 50 else ORANGE)
        draw.arrow((728, y + 21), (765, 160))
    draw.box(768, 130, 95, 60, "MG-FD\nover all", ORANGE)
    draw.text(265, 315, "multi-view consistency; each view draws its own changes", 12)
    draw.text(655, 290, "multi-modal consistency,\nwith --modality joint+motion+bone", 12)
    draw.write(path)


if __name__ == "__main__":
    folder = Path(__file__).parent
    for figure in (dste, mgfd, mpct):
        figure(folder / f"{figure.__name__}.svg")

"""Create time and host memory against the number of machines."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def draw(crowd: list[tuple[int, float, float]], step: int) -> None:
    """crowd: (machines alive, seconds for the last `step` of them, MiB of PSS each)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    alive = [row[0] for row in crowd]
    for file, label, values in (
        ("create.png", "seconds per machine", [row[1] / step for row in crowd]),
        ("memory.png", "host memory per machine, MiB (PSS)", [row[2] for row in crowd]),
    ):
        figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
        axes.plot(alive, values, marker="o")
        axes.set_xlabel("machines alive")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        figure.savefig(FOLDER / file, dpi=110)
        pyplot.close(figure)

"""Draws the plots of a run when its training ends."""

from collections.abc import Callable

from imgtool.pipelines.storage.atomic import atomic_write
from imgtool.training.evaluation.evaluate import Metrics
from imgtool.training.runs.curves import draw_curves, read_results
from imgtool.training.runs.run import Run
from imgtool.wordnet.errors import first_line


def draw_plots(run: Run, epochs: int, measure: Callable[[], Metrics]) -> None:
    """Draws results.png, calls ``measure`` (`Classifier.val` with ``plots``), and passes the plots to the loggers.

    ``epochs`` is the number of finished epochs. A plot that fails becomes a line in the log; the run stays complete.
    """

    def curves() -> None:
        with atomic_write(run.path / "results.png") as temporary:
            draw_curves(read_results(run.results), temporary)

    for name, draw in (("results.png", curves), ("the confusion matrix", measure)):
        try:
            draw()
        except Exception as error:
            run.say(f"cannot draw {name} (the run itself is complete): {first_line(error)}")
    if run.logger is not None:
        for name in ("results.png", "confusion_matrix.png", "mistakes.jpg"):
            if (run.path / name).is_file():
                run.logger.image(name.partition(".")[0], run.path / name, epochs)

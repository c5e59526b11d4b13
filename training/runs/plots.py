"""What is drawn of a run when its training ends."""

from collections.abc import Callable

from imgtool.pipelines.storage.atomic import replacing
from imgtool.training.evaluation.evaluate import Metrics
from imgtool.training.runs.curves import draw_curves, read_results
from imgtool.training.runs.run import Run
from imgtool.wordnet.errors import first_line


def draw_plots(run: Run, epochs: int, measure: Callable[[], Metrics]) -> None:
    """results.png, and what ``measure`` (`Classifier.val` with ``plots``) draws there; all goes to the run's loggers.

    ``epochs``: epochs done. What fails is said in a line, and the training keeps what it has.
    """

    def curves() -> None:
        with replacing(run.path / "results.png") as temporary:
            draw_curves(read_results(run.results), temporary)

    for what, draw in (("results.png", curves), ("the confusion matrix", measure)):
        try:
            draw()
        except Exception as error:
            run.say(f"{what} could not be drawn, the training is whole all the same: {first_line(error)}")
    if run.logger is not None:
        for name in ("results.png", "confusion_matrix.png", "mistakes.jpg"):
            if (run.path / name).is_file():
                run.logger.image(name.partition(".")[0], run.path / name, epochs)

"""Progress of a training run: one object that receives every event."""

from haechi.cache.progress import Progress
from haechi.train.grid import Trial
from haechi.train.model.fit import DivergedError, Epoch
from haechi.train.plan import Plan
from haechi.train.result import Fold, Result


class TrainProgress(Progress):
    """Receives the events of a training run and shows nothing. The command line, or a notebook, passes a subclass.

    `start` is called once for each head that is trained, with the number of videos in all its epochs and with
    `training`, `fold 1 of 5` or `on all videos`; `advance` with the number of videos of each batch; `notice` with
    remarks on the file of new labels. All methods are called in the thread that trains.
    """

    def trial(self, trial: Trial, number: int, total: int) -> None:
        """Experiment `number` (from 1) of `total` begins; called only when several are trained."""

    def plan(self, plan: Plan) -> None:
        """The plan of a run is made; its first head is trained next."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch of a split into parts is over."""

    def fold(self, fold: Fold) -> None:
        """A fold of cross-validation is over."""

    def trained(self, result: Result) -> None:
        """All heads of a run are trained; its files are written next."""

    def diverged(self, error: DivergedError) -> None:
        """The training of one of several experiments diverged; the next experiment follows."""


SILENT = TrainProgress()

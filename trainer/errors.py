"""Errors that the command line prints as one line."""


class TrainerError(Exception):
    """An error the user can fix; the message says what is wrong and what to do. Exit code 2."""


class TrainingDiverged(TrainerError):  # noqa: N818
    """A loss became NaN or infinite; the last checkpoint before it is kept. Exit code 1."""


class WorkerLost(TrainerError):  # noqa: N818
    """Another process of a distributed run is lost; the last checkpoint is kept. Exit code 1."""

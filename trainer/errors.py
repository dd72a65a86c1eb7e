"""The one exception that the command line turns into a single line and exit code 2."""


class TrainerError(Exception):
    """Something the user can mend: the message says what is wrong and what to do."""


class TrainingDiverged(TrainerError):
    """A loss became NaN or infinite; the last checkpoint before it is kept."""


class PeersLost(TrainerError):
    """Another process of a run that several train together is gone; the last checkpoint is kept."""

"""What the command line turns into one line and an exit code."""


class EvaluationError(Exception):
    """The user's mistake, or something of theirs that does not answer. One line; exit code 2."""


class CheckFailed(Exception):
    """The images were scored and missed a limit that was asked for. One line; exit code 1."""

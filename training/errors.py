"""What makes a policy impossible to judge."""


class TrainingError(Exception):
    """Data or a policy that cannot be used; the message names every problem with its place and its way out."""

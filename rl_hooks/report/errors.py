"""What makes a report card impossible."""


class ReportError(Exception):
    """A run folder, a bundle or a configuration that cannot be read; the message names the place and the way out."""

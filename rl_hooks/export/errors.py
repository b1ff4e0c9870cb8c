"""What can go wrong with an export."""


class ExportError(Exception):
    """A run that cannot become a bundle; the message names the place and the way out."""

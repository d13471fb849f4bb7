"""Numbers in what users send, for services of any kind of server."""


def natural(text):
    """The number that a text of ASCII digits is, below 10 ** 19; None for any other text, which ``int`` may choke on."""
    return int(text) if len(text) < 20 and text.isascii() and text.isdigit() else None

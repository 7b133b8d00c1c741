"""Splits a document that is too long where a reader would pause: between paragraphs, else lines, sentences, words."""

from collections.abc import Iterator

# From the best border to the worst. The second half of a piece is searched, so that pieces are never very short.
_BORDERS = ("\n\n", "\n", ". ", "! ", "? ", "。", "! ", " ")


def split_document(text: str, max_chars: int) -> Iterator[str]:
    """Pieces of at most max_chars; joined they are the text but for white space where it was cut. Linear in its length.

    A text that is short enough comes as it is, white space included; pieces are never empty.
    """
    if len(text) <= max_chars:
        if text and not text.isspace():
            yield text
        return
    start, end = 0, len(text)
    while start < end:
        stop = end if end - start <= max_chars else _border(text, start, start + max_chars)
        piece = text[start:stop].strip()
        if piece:
            yield piece
        start = stop


def _border(text: str, start: int, limit: int) -> int:
    """Where the next piece begins: behind the last border of the best kind in text[start:limit], or at the limit."""
    middle = start + (limit - start) // 2
    for border in _BORDERS:
        found = text.rfind(border, middle, limit)
        if found >= 0:
            return found + len(border)
    return limit

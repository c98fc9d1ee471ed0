"""Draw a text as a QR code in a terminal."""

import io

import segno

from drawbridge import errors

#: Modules of light border. The standard has four; cameras read a terminal's with one, and 80 columns hold more text.
BORDER = 1


def draw_qr_code(text: str, columns: int | None) -> str:
    """Return lines of block characters, two rows of modules each, for light text on a dark terminal.

    Raises `QrCodeError` for a code that does not fit a terminal of some columns (None for any), or that is too long
    for a QR code (2,953 bytes, ISO/IEC 18004).
    """
    try:
        # The lowest error correction: nothing damages a screen, and the code has the fewest modules.
        code = segno.make_qr(text, error="l", boost_error=False)
    except segno.DataOverflowError:
        raise errors.QrCodeError(f"{len(text)} characters are too many for a QR code", "copy the link") from None
    width, _ = code.symbol_size(border=BORDER)
    if columns is not None and width > columns:
        raise errors.QrCodeError(
            f"the QR code of the link has {width} columns, and the terminal has {columns}", "widen it, or copy the link"
        )
    drawing = io.StringIO()
    code.terminal(drawing, border=BORDER, compact=True)
    return drawing.getvalue()

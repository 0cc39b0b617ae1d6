"""QR codes as images. Made in a thread, because one takes milliseconds; kept per code, because clients poll."""

import asyncio
import base64
import io
from collections import OrderedDict

import segno

_SCALE = 6  # pixels a module: about 400 pixels in all, readable by a phone from a screen
_KEPT_MAX = 256
_kept: OrderedDict[str, str] = OrderedDict()


async def png_data_uri(text: str) -> str:
    """`data:image/png;base64,...` of a QR code that reads `text`."""
    image = _kept.get(text)
    if image is None:
        image = await asyncio.to_thread(_draw, text)
        _kept[text] = image
        while len(_kept) > _KEPT_MAX:
            _kept.popitem(last=False)
    return image


def _draw(text: str) -> str:
    buffer = io.BytesIO()
    segno.make(text, error="l", micro=False).save(buffer, kind="png", scale=_SCALE, border=4)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

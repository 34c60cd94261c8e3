"""The orientation that a picture's metadata states. Nothing is raised: what cannot be read is skipped."""

import math
import re
import struct

ORIENTATION = 0x0112
UPRIGHT = 1

# The first bytes of EXIF, which is a TIFF without pictures: byte order, then 42 in either order, as Pillow accepts it.
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">", b"II\0*": "<", b"MM*\0": ">"}

# TIFF's types of numbers (TIFF 6.0, section 2; 13 and 16 from its supplements) -> layout. One byte (1) and text (2) are
# no orientation to Pillow either.
NUMBERS = {3: "H", 4: "L", 5: "LL", 6: "b", 8: "h", 9: "l", 10: "ll", 11: "f", 12: "d", 13: "L", 16: "Q"}


def orientation(exif: bytes, xmp: bytes) -> int:
    """1 to 8, as EXIF numbers them; 1 is upright, and is the answer where nothing usable is stated.

    XMP counts only where EXIF states nothing, as in Pillow.
    """
    stated = _from_exif(exif)
    if stated is None:
        found = re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp)
        stated = float(found[1]) if found else None
    return int(stated) if stated is not None and stated in range(1, 9) else UPRIGHT


def _from_exif(exif: bytes) -> float | None:
    """The first orientation in the first directory that can be read, whatever its other entries hold."""
    data = re.sub(rb"^(Exif\0\0){1,2}", b"", exif)
    order = BYTE_ORDERS.get(data[:4])
    if order is None or len(data) < 8:
        return None
    (directory,) = struct.unpack_from(order + "L", data, 4)
    if directory + 2 > len(data):
        return None
    (num_entries,) = struct.unpack_from(order + "H", data, directory)
    last = min(directory + 2 + 12 * num_entries, len(data)) - 12
    for entry in range(directory + 2, last + 1, 12):
        tag, type, count = struct.unpack_from(order + "HHL", data, entry)
        if tag != ORIENTATION or type not in NUMBERS or not count:
            continue
        layout = order + NUMBERS[type]
        size = struct.calcsize(layout) * count
        start = entry + 8 if size <= 4 else struct.unpack_from(order + "L", data, entry + 8)[0]
        if start + size <= len(data):
            value, *divisor = struct.unpack_from(layout, data, start)
            return float(value) if not divisor else value / divisor[0] if divisor[0] else math.nan
    return None

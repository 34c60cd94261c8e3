"""Writes HEIC files as phones do (ISO/IEC 23008-12): tiles, turns, transparency and metadata. HEVC comes from PyAV."""

import io
import struct
from collections.abc import Sequence

import av
import numpy as np

HVCC = b"hvcC"


def box(type: bytes, *parts: bytes, full: int | None = None) -> bytes:
    """A box; `full` are the version and flags of a full box."""
    body = (b"" if full is None else full.to_bytes(4)) + b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), type) + body


def encode_hevc(picture: np.ndarray, *, pixel_format: str = "yuv444p") -> tuple[bytes, bytes]:
    """One picture, (H, W, 3) RGB or (H, W) grey, uint8, nearly without loss: the decoder's configuration, the data."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=1, options={"x265-params": "log-level=none:qp=4:info=0"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = pixel_format
        frame = av.VideoFrame.from_ndarray(picture, "rgb24" if picture.ndim == 3 else "gray")
        frame = frame.reformat(format=pixel_format, dst_colorspace="ITU601", dst_color_range="JPEG")
        for packet in [*stream.encode(frame), *stream.encode()]:
            packet.pts = packet.dts = 0  # x265 leaves a single picture without
            container.mux(packet)
    content = file.getvalue()
    at = content.index(HVCC) - 4
    with av.open(io.BytesIO(content)) as container:
        (data,) = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    return content[at : at + int.from_bytes(content[at : at + 4])], data


def heic(
    tiles: Sequence[Sequence[np.ndarray]],
    *,
    pixel_format: str = "yuv444p",
    quarter_turns: int = 0,
    mirror_axis: int | None = None,
    alpha: np.ndarray | None = None,
    metadata: Sequence[tuple[bytes, bytes]] = (),
    brands: Sequence[bytes] = (b"heic", b"mif1", b"heic"),
    size: tuple[int, int] | None = None,
    to_the_end: bool = False,
) -> bytes:
    """A HEIC of rows of tiles of one size, each (H, W, 3) or (H, W) uint8; a single tile is no grid.

    `quarter_turns` counter-clockwise (`irot`); `mirror_axis`: 0 swaps top and bottom, 1 left and right (`imir`);
    `alpha` (H, W) uint8 of the whole picture; `metadata`: type and data of items such as `Exif`; `brands`: the major
    one first; `size`: the width and height that are declared; `to_the_end`: the last box has no length.
    """
    tile_height, tile_width = tiles[0][0].shape[:2]
    height, width = tile_height * len(tiles), tile_width * len(tiles[0])
    declared = size or (width, height)
    flat = [encode_hevc(tile, pixel_format=pixel_format) for row in tiles for tile in row]
    is_grid = len(flat) > 1
    grid = struct.pack(">BBBBHH", 0, 0, len(tiles) - 1, len(tiles[0]) - 1, *declared)
    # the items: type, data, properties, references
    items: list[tuple[bytes, bytes, list[bytes], list[bytes]]] = []
    colour = box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 0x80))
    turns = [box(b"irot", bytes([quarter_turns]))] if quarter_turns else []
    turns += [box(b"imir", bytes([mirror_axis]))] if mirror_axis is not None else []
    shape = box(b"ispe", struct.pack(">II", *declared), full=0)
    if is_grid:
        ids = struct.pack(f">HH{len(flat)}H", 1, len(flat), *range(2, 2 + len(flat)))
        items.append((b"grid", grid, [shape, colour, *turns], [box(b"dimg", ids)]))
        tile_shape = box(b"ispe", struct.pack(">II", tile_width, tile_height), full=0)
        items += [(b"hvc1", data, [config, tile_shape, colour], []) for config, data in flat]
    else:
        config, data = flat[0]
        items.append((b"hvc1", data, [config, shape, colour, *turns], []))
    if alpha is not None:
        config, data = encode_hevc(alpha, pixel_format="gray")
        kind = box(b"auxC", b"urn:mpeg:hevc:2015:auxid:1\0", full=0)
        reference = box(b"auxl", struct.pack(">HHH", len(items) + 1, 1, 1))
        items.append((b"hvc1", data, [config, shape, kind, *turns], [reference]))
    for type, data in metadata:
        items.append((type, data, [], [box(b"cdsc", struct.pack(">HHH", len(items) + 1, 1, 1))]))

    properties, associations = [], []
    for id, (_, _, owned, _) in enumerate(items, start=1):
        marks = []
        for item in owned:
            if item not in properties:
                properties.append(item)
            marks.append(properties.index(item) + 1 | (0 if item[4:8] == b"ispe" else 0x80))
        if marks:
            associations.append(struct.pack(f">HB{len(marks)}B", id, len(marks), *marks))
    names = [
        box(b"infe", struct.pack(">HH4s", id, 0, type), b"application/rdf+xml\0" if type == b"mime" else b"", b"\0",
            full=0x02000000 | (type == b"hvc1" and is_grid))
        for id, (type, *_) in enumerate(items, start=1)
    ]  # fmt: skip
    references = b"".join(reference for *_, owned in items for reference in owned)

    def meta(start: int) -> bytes:
        """The index, if the items' data begins at this byte."""
        entries = []
        for id, (type, data, *_) in enumerate(items, start=1):
            method, where = (1, 0) if type == b"grid" else (0, start)
            entries.append(struct.pack(">HHHHII", id, method, 0, 1, where, len(data)))
            start += 0 if type == b"grid" else len(data)
        return box(
            b"meta",
            box(b"hdlr", struct.pack(">I4s12sB", 0, b"pict", b"", 0), full=0),
            box(b"pitm", struct.pack(">H", 1), full=0),
            box(b"iloc", struct.pack(">BBH", 0x44, 0, len(entries)), *entries, full=0x01000000),
            box(b"iinf", struct.pack(">H", len(names)), *names, full=0),
            box(b"iref", references, full=0) if references else b"",
            box(
                b"iprp",
                box(b"ipco", *properties),
                box(b"ipma", struct.pack(">I", len(associations)), *associations, full=0),
            ),
            box(b"idat", grid) if is_grid else b"",
            full=0,
        )

    head = box(b"ftyp", brands[0], bytes(4), *brands[1:])
    start = len(head) + len(meta(0)) + 8
    data = box(b"mdat", *(data for type, data, *_ in items if type != b"grid"))
    return head + meta(start) + (bytes(4) + data[4:] if to_the_end else data)

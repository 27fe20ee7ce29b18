"""Fields, cells and edits for plugins in Python: what the interface in wit/ has as flat columns, as strings and numbers."""

import struct
from wit_world.exports.lifecycle import Setup
from wit_world.imports import types

RECORD, RESOURCE, SCOPE, INTRINSIC = range(4)
TEXT, INTEGER, FLOAT, BOOLEAN, BYTES, JSON, ANY = range(7)
SPAN, LOG = range(2)


def field(kind, key, level=RECORD, read=True, write=False):
    """A field to read, unless said otherwise."""
    return types.Field(level=level, key=key, kind=kind, read=read, write=write)


def setup(fields, signals=(SPAN,), max_rows=0, fail_closed=False):
    """What `configure` returns."""
    return Setup(list(signals), fields, max_rows, fail_closed, [])


def cells(column, kind=TEXT):
    """The cells of a column, each with its row."""
    rows, column = column.value.rows, column.value
    if isinstance(column, types.NumColumn):
        values = column.values
        if kind == FLOAT:
            values = struct.unpack(f"<{len(values)}d", struct.pack(f"<{len(values)}q", *values))
    else:
        starts = [0, *column.ends[:-1]]
        values = [column.bytes[start:end] for start, end in zip(starts, column.ends)]
        if kind != BYTES:
            values = [value.decode() for value in values]
    return zip(rows or range(len(values)), values)


def text_edits(field, values):
    """Text to set in one field: pairs of a row and a text, rows ascending."""
    rows, ends, data = [], [], bytearray()
    for row, text in values:
        data += text.encode()
        rows.append(row)
        ends.append(len(data))
    return types.TextEdits(field, types.TextColumn(rows, ends, bytes(data)))

"""Fields, cells and edits for plugins in Python: what the interface in wit/ has as flat columns, as strings and numbers.

The examples are tests: `python -m doctest millrace.py`, with the bindings of componentize-py in PYTHONPATH.
"""

import functools
import struct
from componentize_py_types import Err
from wit_world.exports.lifecycle import Setup
from wit_world.imports import types

RECORD, RESOURCE, SCOPE, INTRINSIC = range(4)
TEXT, INTEGER, FLOAT, BOOLEAN, BYTES, JSON, ANY = range(7)
SPAN, LOG = range(2)

# The methods of all worlds that can answer with an error.
ANSWERING = ["configure", "restore", "transform", "enrich", "decide", "opened", "decode", "encode"]


def says_why(plugin):
    """Has the methods of a class answer an exception as an error, with its type and message, instead of a trap.

    >>> @says_why
    ... class Enricher:
    ...     def enrich(self, signal, rows, columns):
    ...         return columns[7]
    >>> try:
    ...     Enricher().enrich(SPAN, 0, [])
    ... except Err as error:
    ...     print(error.value)
    IndexError: list index out of range
    """
    for name in ANSWERING:
        if name in vars(plugin):
            setattr(plugin, name, _answering(vars(plugin)[name]))
    return plugin


def _answering(method):
    @functools.wraps(method)
    def answer(*arguments):
        try:
            return method(*arguments)
        except (Err, MemoryError):
            # What it says itself; and what the host knows better.
            raise
        except Exception as error:
            raise Err(f"{type(error).__name__}: {error}") from None

    return answer


def field(kind, key, level=RECORD, read=True, write=False):
    """A field to read, unless said otherwise.

    >>> url = field(TEXT, "url.full", write=True)
    >>> url.key, url.level == RECORD, url.read, url.write
    ('url.full', True, True, True)
    """
    return types.Field(level=level, key=key, kind=kind, read=read, write=write)


def setup(fields, signals=(SPAN,), max_rows=0, fail_closed=False):
    """What `configure` returns.

    >>> [declared.key for declared in setup([field(TEXT, "url.full")]).fields]
    ['url.full']
    """
    return Setup(list(signals), fields, max_rows, fail_closed, [])


def cells(column, kind=TEXT):
    """The cells of a column, each with its row; a column that has no rows has a cell for each.

    >>> list(cells(types.Column_Text(types.TextColumn([1, 4], [1, 3], b"abc"))))
    [(1, 'a'), (4, 'bc')]
    >>> list(cells(types.Column_Num(types.NumColumn([], [7, 8])), INTEGER))
    [(0, 7), (1, 8)]
    >>> list(cells(types.Column_Num(types.NumColumn([3], [4607182418800017408])), FLOAT))
    [(3, 1.0)]
    """
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
    """Text to set in one field: pairs of a row and a text, rows ascending.

    >>> edits = text_edits(2, [(0, "a"), (5, "grün")])
    >>> edits.field, list(cells(types.Column_Text(edits.cells)))
    (2, [(0, 'a'), (5, 'grün')])
    """
    rows, ends, data = [], [], bytearray()
    for row, text in values:
        data += text.encode()
        rows.append(row)
        ends.append(len(data))
    return types.TextEdits(field, types.TextColumn(rows, ends, bytes(data)))

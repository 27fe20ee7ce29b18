// Fields, cells and edits for plugins in JavaScript: what the interface in wit/ has as flat columns, as strings and numbers.
//
// Integers beyond 2^53 lose digits here, as every number of JavaScript does.

export const Level = { record: 0, resource: 1, scope: 2, intrinsic: 3 };
export const Kind = { text: 0, integer: 1, float: 2, boolean: 3, bytes: 4, json: 5, any: 6 };
export const Signal = { span: 0, log: 1 };

// QuickJS has neither TextDecoder nor TextEncoder; percent signs are the way of the language itself to UTF-8.
function decode(bytes) {
    let text = "";
    let isAscii = true;
    for (const byte of bytes) {
        isAscii &&= byte < 0x80;
        text += String.fromCharCode(byte);
    }
    if (isAscii) return text;
    return decodeURIComponent(Array.from(bytes, (byte) => "%" + byte.toString(16).padStart(2, "0")).join(""));
}

function encode(text) {
    // A half of a surrogate pair is no text; it becomes a replacement character.
    const escaped = encodeURIComponent(text.toWellFormed?.() ?? text);
    const bytes = [];
    for (let i = 0; i < escaped.length; i++) {
        bytes.push(escaped[i] === "%" ? parseInt(escaped.slice(i + 1, (i += 2) + 1), 16) : escaped.charCodeAt(i));
    }
    return new Uint8Array(bytes);
}

/** A field: `field(Kind.text, "user.name", { write: true })`; `read` is true unless said otherwise. */
export function field(kind, key, { level = Level.record, read = true, write = false } = {}) {
    return { level, key, kind, read, write };
}

/** What `configure` returns. */
export function setup(fields, { signals = [Signal.span], maxRows = 0, failClosed = false } = {}) {
    return { signals, fields, maxRows, failClosed, hints: [] };
}

/** The cells of a column, `[row, value]`. */
export function* cells(column) {
    const { rows } = column.val;
    const row = (i) => (rows.length ? rows[i] : i);
    if (column.tag === "num") {
        for (let i = 0; i < column.val.values.length; i++) yield [row(i), column.val.values[i]];
        return;
    }
    const { ends } = column.val;
    const bytes = new Uint8Array(column.val.bytes);
    for (let i = 0, start = 0; i < ends.length; start = ends[i++]) {
        yield [row(i), decode(bytes.subarray(start, ends[i]))];
    }
}

/** Text to set in one field; rows ascend. */
export class TextEdits {
    constructor(field) {
        this.field = field;
        this.rows = [];
        this.ends = [];
        this.parts = [];
        this.length = 0;
    }

    set(row, text) {
        const bytes = encode(text);
        this.parts.push(bytes);
        this.length += bytes.length;
        this.rows.push(row);
        this.ends.push(this.length);
    }

    /** In the form of the interface. */
    finish() {
        const bytes = new Uint8Array(this.length);
        this.parts.forEach((part, i) => bytes.set(part, i ? this.ends[i - 1] : 0));
        return { field: this.field, cells: { rows: this.rows, ends: this.ends, bytes } };
    }
}

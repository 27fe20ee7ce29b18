// Cuts the query off `url.full`: what stands behind the question mark may be anybody's secret.
import { Kind, Signal, TextEdits, cells, field, setup } from "./millrace.js";

let marker = "CUT";

export const lifecycle = {
    describe: () => ({ name: "my-plugin", version: "0.1.0", description: "Cuts the query off URLs.", configSchema: "" }),
    configure(config) {
        marker = (JSON.parse(config || "{}") ?? {}).marker ?? "CUT";
        return setup([field(Kind.text, "url.full", { write: true })], { signals: [Signal.span] });
    },
    save: () => new Uint8Array(0),
    restore() {},
};

export const transformer = {
    transform(_signal, _rows, _groups, columns) {
        const urls = new TextEdits(0);
        for (const [row, url] of cells(columns[0])) {
            const end = url.indexOf("?");
            if (end >= 0) urls.set(row, url.slice(0, end) + "?" + marker);
        }
        return { drop: new Uint32Array(0), extra: [], text: [urls.finish()], num: [], unset: [] };
    },
};

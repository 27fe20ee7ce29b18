// Says which browser made a request, from `user_agent.original`. World `enrich`: called once for each text it has not seen,
// so an interpreter is fast enough.
import { Kind, Signal, TextEdits, cells, field, setup } from "../js/millrace.js";

// The first that fits counts: most browsers also claim to be another one.
const BROWSERS = [["Edge", "Edg/"], ["Opera", "OPR/"], ["Firefox", "Firefox/"], ["Chrome", "Chrome/"], ["Safari", "Safari/"]];

export const lifecycle = {
    describe: () => ({ name: "js-browser", version: "1.0.0", description: "Says which browser made a request.", configSchema: "" }),
    configure(config) {
        const unknown = Object.keys(JSON.parse(config || "{}") ?? {});
        if (unknown.length) throw `there is no setting ${unknown[0]}; there are none`;
        const fields = [field(Kind.text, "user_agent.original"), field(Kind.text, "user_agent.name", { read: false, write: true })];
        return setup(fields, { signals: [Signal.span, Signal.log] });
    },
    save: () => new Uint8Array(0),
    restore() {},
};

export const enricher = {
    enrich(_signal, _rows, columns) {
        const names = new TextEdits(1);
        for (const [row, agent] of cells(columns[0])) {
            const browser = BROWSERS.find(([, mark]) => agent.includes(mark));
            if (browser) names.set(row, browser[0]);
        }
        return { extra: [], text: [names.finish()], num: [] };
    },
};

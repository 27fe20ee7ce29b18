// node --test
import assert from "node:assert";
import test from "node:test";
import { cells } from "../js/millrace.js";
import { enricher, lifecycle } from "./plugin.js";

const column = (texts, rows = []) => {
    const bytes = new TextEncoder().encode(texts.join(""));
    let end = 0;
    const ends = texts.map((text) => (end += new TextEncoder().encode(text).length));
    return { tag: "text", val: { rows, ends, bytes } };
};

test("browsers are told apart", () => {
    const agents = ["Mozilla/5.0 Chrome/1 Safari/2 Edg/3", "curl/8 grüße", "Mozilla/5.0 Firefox/9"];
    const { text } = enricher.enrich(0, 9, [column(agents, [1, 4, 7])]);
    assert.deepEqual([...cells({ tag: "text", val: text[0].cells })], [[1, "Edge"], [7, "Firefox"]]);
    assert.deepEqual([...cells(column(["ä", "b"]))], [[0, "ä"], [1, "b"]]);
});

test("a setting that is not there is refused", () => {
    assert.equal(lifecycle.configure("{}").fields.length, 2);
    assert.throws(() => lifecycle.configure('{"x":1}'), (error) => error.includes("no setting x"));
});

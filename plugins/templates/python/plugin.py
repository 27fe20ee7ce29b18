"""Cuts the query off `url.full`: what stands behind the question mark may be anybody's secret."""

import json

import millrace
from wit_world import exports
from wit_world.exports.lifecycle import Info
from wit_world.imports.types import Patch

URL = 0
settings = {"marker": "CUT"}


@millrace.says_why
class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Info("my-plugin", "0.1.0", "Cuts the query off URLs.", "")

    def configure(self, config):
        settings.update(json.loads(config or "{}") or {})
        return millrace.setup([millrace.field(millrace.TEXT, "url.full", write=True)])

    def save(self):
        return b""

    def restore(self, saved):
        pass


@millrace.says_why
class Transformer(exports.Transformer):
    def transform(self, signal, rows, groups, columns, all):
        urls = ((row, url.partition("?")) for row, url in millrace.cells(columns[URL]))
        cut = ((row, before + "?" + settings["marker"]) for row, (before, mark, _) in urls if mark)
        return Patch([], [], [millrace.text_edits(URL, cut)], [], [])

"""Says what kind of program a process is, from `process.executable.name`. World `enrich`: called once for each name it has
not seen, so an interpreter is fast enough."""

import json

import millrace
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.enricher import Additions
from wit_world.exports.lifecycle import Info

CATEGORIES = {
    "browser": ["chrome.exe", "firefox.exe", "msedge.exe"],
    "office": ["excel.exe", "outlook.exe", "winword.exe"],
    "shell": ["cmd.exe", "powershell.exe", "pwsh.exe"],
}
NAME, CATEGORY = range(2)
by_name = {}


@millrace.says_why
class Lifecycle(exports.Lifecycle):
    def describe(self):
        return Info("py-category", "1.0.0", "Says what kind of program a process is.", "")

    def configure(self, config):
        categories = (json.loads(config or "{}") or {}).get("categories", CATEGORIES)
        if not isinstance(categories, dict):
            raise Err("categories maps a category to names of programs")
        by_name.clear()
        by_name.update((name.lower(), category) for category, names in categories.items() for name in names)
        fields = [
            millrace.field(millrace.TEXT, "process.executable.name"),
            millrace.field(millrace.TEXT, "process.category", read=False, write=True),
        ]
        return millrace.setup(fields)

    def save(self):
        return b""

    def restore(self, saved):
        pass


@millrace.says_why
class Enricher(exports.Enricher):
    def enrich(self, signal, rows, columns):
        known = ((row, by_name.get(name.lower())) for row, name in millrace.cells(columns[NAME]))
        edits = millrace.text_edits(CATEGORY, ((row, category) for row, category in known if category))
        return Additions([], [edits], [])

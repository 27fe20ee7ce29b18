"""python -m unittest, with the bindings of componentize-py in PYTHONPATH."""

import unittest

import millrace
import plugin
from componentize_py_types import Err
from wit_world.imports import types


def column(texts, rows=()):
    edits = millrace.text_edits(0, zip(rows or range(len(texts)), texts)).cells
    return types.Column_Text(types.TextColumn(list(rows), edits.ends, edits.bytes))


class Test(unittest.TestCase):
    def test_known_names_have_a_category(self):
        self.assertEqual(len(plugin.Lifecycle().configure("").fields), 2)
        names = column(["EXCEL.EXE", "grüße.exe", "cmd.exe"], [1, 4, 7])
        additions = plugin.Enricher().enrich(0, 9, [names])
        self.assertEqual(list(millrace.cells(types.Column_Text(additions.text[0].cells))), [(1, "office"), (7, "shell")])

    def test_numbers_come_as_they_are(self):
        numbers = types.Column_Num(types.NumColumn([], [0, 4607182418800017408]))
        self.assertEqual(list(millrace.cells(numbers, millrace.FLOAT)), [(0, 0.0), (1, 1.0)])

    def test_a_wrong_configuration_is_refused(self):
        with self.assertRaises(Err):
            plugin.Lifecycle().configure('{"categories": 1}')

    def test_an_exception_is_an_error_that_says_what_it_was(self):
        with self.assertRaises(Err) as raised:
            plugin.Lifecycle().configure("{")
        self.assertTrue(raised.exception.value.startswith("JSONDecodeError: "), raised.exception.value)


if __name__ == "__main__":
    unittest.main()

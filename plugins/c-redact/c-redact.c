/* Cuts the query off `url.full`: nobody knows what is in it. Whole columns, no allocation but the arena's. */
#define MR_FAIL_CLOSED true
#include "../c/millrace.h"

enum { URL };
static const mr_field fields[] = { [URL] = MR_FIELD(MR_RECORD, "url.full", MR_ANY, MR_EDIT) };
MR_PLUGIN("c-redact", "1.0.0", "Cuts the query off url.full.", fields, MR_SPANS_AND_LOGS)

static const char *transform(mr_batch *batch) {
    if (batch->column_count != 1 || batch->columns[URL].is_numbers) return "url.full did not come as text";
    const mr_texts *urls = &batch->columns[URL].texts;
    const char cut[] = "?REDACTED";
    size_t count = urls->ends.length;
    mr_text_edits *edits = mr_edit_texts(batch, URL, count, urls->bytes.length + count * (sizeof cut - 1));
    for (size_t i = 0; i < count; i++) {
        mr_text url = mr_cell(urls, i);
        size_t end = mr_find(url.at, url.length, '?');
        if (end == url.length) continue;
        mr_append(edits, url.at, end);
        mr_append(edits, cut, sizeof cut - 1);
        mr_end(edits, mr_row(&urls->rows, i));
    }
    return 0;
}

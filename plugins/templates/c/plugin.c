/* Cuts the query off `url.full`: what stands behind the question mark may be anybody's secret.
 *
 * Values come as whole columns and go back as lists of edits; see millrace.h. There is no libc, and all memory of a call is
 * free again after it.
 */
#include "millrace.h"

enum { URL };
static const mr_field fields[] = { [URL] = MR_FIELD(MR_RECORD, "url.full", MR_TEXT, MR_EDIT) };
MR_PLUGIN("my-plugin", "0.1.0", "Cuts the query off URLs.", fields, MR_SPANS)

static const char *transform(mr_batch *batch) {
    if (batch->column_count != 1 || batch->columns[URL].is_numbers) return "url.full did not come as text";
    const mr_texts *urls = &batch->columns[URL].texts;
    const char cut[] = "?CUT";
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

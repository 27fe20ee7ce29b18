/* Traps on every batch with a URL of the host `trap`, and changes nothing: what it fails on is told by what it is given. */
#include "../../../plugins/c/millrace.h"

enum { URL };
static const mr_field fields[] = { [URL] = MR_FIELD(MR_RECORD, "url.full", MR_TEXT, MR_READ) };
MR_PLUGIN("picky", "1.0.0", "Traps on some URLs.", fields, MR_SPANS)

static const char *transform(mr_batch *batch) {
    const char trap[] = "http://trap/";
    const mr_texts *urls = &batch->columns[URL].texts;
    for (size_t i = 0; i < urls->ends.length; i++) {
        mr_text url = mr_cell(urls, i);
        size_t same = 0;
        while (same < sizeof trap - 1 && same < url.length && url.at[same] == trap[same]) same++;
        if (same == sizeof trap - 1) __builtin_trap();
    }
    return 0;
}

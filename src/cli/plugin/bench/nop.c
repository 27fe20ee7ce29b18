/* Reads a field and changes nothing. Built by: millrace plugin build src/cli/plugin/bench --out src/cli/plugin/bench/nop.wasm */
#include "../../../../plugins/c/millrace.h"

static const mr_field fields[] = { MR_FIELD(MR_RECORD, "url.full", MR_TEXT, MR_READ) };
MR_PLUGIN("nop", "1.0.0", "Changes nothing.", fields, MR_SPANS)

static const char *transform(mr_batch *batch) {
    (void)batch;
    return 0;
}

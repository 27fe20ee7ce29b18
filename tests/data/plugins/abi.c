/* The plugins of this folder: one for each world, small, built once and kept. A component that was built against 1.0.0 must
 * load for ever; what changes the interface makes these fail to link. Each does a little that a test can see.
 */
#define WORLD_TRANSFORM 1
#define WORLD_SAMPLE 2
#define WORLD_ENRICH 3
#define WORLD_DECODE 4
#define WORLD_ENCODE 5

#if WORLD != WORLD_TRANSFORM
#define MR_OTHER_WORLD
#endif
#include "../../../plugins/c/millrace.h"

#if WORLD == WORLD_TRANSFORM

/* Copies `name` to the attribute `abi`, and drops the last row. */
static const mr_field fields[] = { MR_FIELD(MR_INTRINSIC, "name", MR_TEXT, MR_READ), MR_FIELD(MR_RECORD, "abi", MR_TEXT, MR_WRITE) };
MR_PLUGIN("abi-transform", "1.0.0", "Copies name to abi and drops the last row.", fields, MR_SPANS)

static const char *transform(mr_batch *batch) {
    const mr_texts *names = &batch->columns[0].texts;
    mr_text_edits *edits = mr_edit_texts(batch, 1, names->ends.length, names->bytes.length);
    for (size_t i = 0; i < names->ends.length; i++) {
        mr_text name = mr_cell(names, i);
        mr_append(edits, name.at, name.length);
        mr_end(edits, mr_row(&names->rows, i));
    }
    if (batch->rows) {
        batch->patch.drop = (mr_rows){ mr_take(4, 4), 1 };
        batch->patch.drop.at[0] = batch->rows - 1;
    }
    return 0;
}

#elif WORLD == WORLD_SAMPLE

/* Keeps every trace, each for two. */
static const mr_field fields[] = { MR_FIELD(MR_INTRINSIC, "errors", MR_INTEGER, MR_READ) };
MR_PLUGIN("abi-sample", "1.0.0", "Keeps every trace, each for two.", fields, MR_SPANS)

typedef struct { uint8_t is_error; struct { uint8_t *at; size_t length; } decisions; struct { double *at; size_t length; } weights; } decided;

MR_EXPORT("millrace:plugin/sampler@1.0.0#decide")
const decided *decide(uint32_t traces, uint32_t final, const mr_column *columns, size_t column_count) {
    (void)final, (void)columns, (void)column_count;
    decided *answer = mr_take(sizeof *answer, 8);
    *answer = (decided){ 0, { mr_take(traces, 1), traces }, { mr_take(traces * 8, 8), traces } };
    for (uint32_t i = 0; i < traces; i++) answer->decisions.at[i] = 1, answer->weights.at[i] = 2;
    return answer;
}

MR_EXPORT("cabi_post_millrace:plugin/sampler@1.0.0#decide") void decide_read(const void *answer) { (void)answer, mr_top = mr_kept; }

#elif WORLD == WORLD_ENRICH

/* Gives every row the attribute `abi`, which is `yes`. */
static const mr_field fields[] = { MR_FIELD(MR_RECORD, "url.full", MR_TEXT, MR_READ), MR_FIELD(MR_RECORD, "abi", MR_TEXT, MR_WRITE) };
MR_PLUGIN("abi-enrich", "1.0.0", "Adds abi=yes.", fields, MR_SPANS)

typedef struct {
    uint8_t is_error;
    struct { const mr_field *at; size_t length; } extra;
    struct { mr_text_edits *at; size_t length; } texts;
    struct { mr_number_edits *at; size_t length; } numbers;
} enriched;

MR_EXPORT("millrace:plugin/enricher@1.0.0#enrich")
const enriched *enrich(uint32_t signal, uint32_t rows, const mr_column *columns, size_t column_count) {
    (void)signal, (void)columns, (void)column_count;
    mr_batch batch = { 0 };
    mr_text_edits *edits = mr_edit_texts(&batch, 1, rows, rows * 3);
    for (uint32_t row = 0; row < rows; row++) mr_append(edits, "yes", 3), mr_end(edits, row);
    enriched *answer = mr_take(sizeof *answer, 4);
    *answer = (enriched){ .texts = { edits, 1 } };
    return answer;
}

MR_EXPORT("cabi_post_millrace:plugin/enricher@1.0.0#enrich") void enrich_read(const void *answer) { (void)answer, mr_top = mr_kept; }

#elif WORLD == WORLD_DECODE

/* Makes of every chunk a span whose name it is, and answers `ok`. */
static const mr_field fields[] = { MR_FIELD(MR_INTRINSIC, "name", MR_TEXT, MR_WRITE) };
MR_PLUGIN("abi-decode", "1.0.0", "Makes of every chunk a span.", fields, MR_SPANS)

typedef struct {
    uint8_t is_error;
    uint32_t consumed, rows;
    struct { const mr_field *at; size_t length; } extra;
    struct { mr_text_edits *at; size_t length; } texts;
    struct { mr_number_edits *at; size_t length; } numbers;
    uint32_t filtered;
    struct { void *at; size_t length; } rejected;
    mr_text reply;
} decoded;

MR_EXPORT("millrace:plugin/decoder@1.0.0#opened") const mr_restored *opened(uint64_t connection, const void *about, size_t pairs) {
    static const mr_restored welcome;
    (void)connection, (void)about, (void)pairs;
    mr_top = mr_kept;
    return &welcome;
}

MR_EXPORT("millrace:plugin/decoder@1.0.0#decode")
const decoded *decode(uint64_t connection, const char *chunk, size_t length, uint32_t last) {
    (void)connection, (void)last;
    decoded *answer = mr_take(sizeof *answer, 4);
    *answer = (decoded){ .consumed = (uint32_t)length, .rows = length > 0, .reply = { "ok", 2 } };
    if (length) {
        mr_batch batch = { 0 };
        mr_text_edits *edits = mr_edit_texts(&batch, 0, 1, length);
        mr_append(edits, chunk, length);
        mr_end(edits, 0);
        answer->texts.at = edits;
        answer->texts.length = 1;
    }
    return answer;
}

MR_EXPORT("cabi_post_millrace:plugin/decoder@1.0.0#decode") void decode_read(const void *answer) { (void)answer, mr_top = mr_kept; }
MR_EXPORT("millrace:plugin/decoder@1.0.0#closed") void closed(uint64_t connection) { (void)connection; }

#elif WORLD == WORLD_ENCODE

/* Writes the names, one behind the other, as one message; a row without one cannot be said. */
static const mr_field fields[] = { MR_FIELD(MR_INTRINSIC, "name", MR_TEXT, MR_READ) };
MR_PLUGIN("abi-encode", "1.0.0", "Writes the names.", fields, MR_SPANS)

typedef struct {
    uint8_t is_error;
    mr_text bytes;
    mr_rows ends, rows, unencodable;
    mr_text content_type;
} encoded;

MR_EXPORT("millrace:plugin/encoder@1.0.0#encode")
const encoded *encode(uint32_t signal, uint32_t rows, uint32_t *resources, size_t resource_count, uint32_t *scopes,
                      size_t scope_count, const mr_column *columns, size_t column_count, int32_t all) {
    (void)signal, (void)resources, (void)resource_count, (void)scopes, (void)scope_count, (void)column_count;
    mr_return_batch(all);
    const mr_texts *names = &columns[0].texts;
    encoded *answer = mr_take(sizeof *answer, 4);
    *answer = (encoded){ .bytes = { names->bytes.at, names->bytes.length }, .content_type = MR_TEXT_OF("text/plain") };
    answer->unencodable.at = mr_take(rows * 4, 4);
    for (size_t i = 0, row = 0; row < rows; row++) {
        if (i < names->ends.length && mr_row(&names->rows, i) == row) i++;
        else answer->unencodable.at[answer->unencodable.length++] = (uint32_t)row;
    }
    if (names->bytes.length) {
        answer->ends = (mr_rows){ mr_take(4, 4), 1 };
        answer->rows = (mr_rows){ mr_take(4, 4), 1 };
        answer->ends.at[0] = (uint32_t)names->bytes.length;
        answer->rows.at[0] = rows - 1;
    }
    return answer;
}

MR_EXPORT("cabi_post_millrace:plugin/encoder@1.0.0#encode") void encode_read(const void *answer) { (void)answer, mr_top = mr_kept; }

#endif

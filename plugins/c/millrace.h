/* Write a transform plugin for Millrace in C: this header, clang, and nothing else.
 *
 *   #include "millrace.h"
 *   enum { URL };
 *   static const mr_field fields[] = { [URL] = MR_FIELD(MR_RECORD, "url.full", MR_TEXT, MR_EDIT) };
 *   MR_PLUGIN("my-plugin", "1.0.0", "What it does.", fields, MR_SPANS)
 *   static const char *transform(mr_batch *batch) { ... return 0; }
 *
 *   clang --target=wasm32 -O3 -mbulk-memory -nostdlib -Wl,--no-entry -o my-plugin.wasm my-plugin.c
 *
 * This is the world `transform` of wit/ as the canonical ABI of the component model lays it out: the structs below are what
 * the host writes into and reads from the plugin's memory, so none of them may change. All memory of a call comes from one
 * arena that is empty again after it: there is no free. Without libc there is no malloc, printf or strlen either.
 *
 * Compiled natively the same code runs in tests; host functions are then the test's.
 */
#ifndef MILLRACE_H
#define MILLRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __wasm__
#define MR_EXPORT(name) __attribute__((export_name(name)))
#define MR_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#else
#define MR_EXPORT(name)
#define MR_IMPORT(module, name)
#endif

/* What the interface calls lists: values and how many. */
typedef struct { const char *at; size_t length; } mr_text;
typedef struct { uint32_t *at; size_t length; } mr_rows;

/* --- fields ------------------------------------------------------------------------------------------------------- */

enum { MR_RECORD, MR_RESOURCE, MR_SCOPE, MR_INTRINSIC };                                /* levels */
enum { MR_TEXT, MR_INTEGER, MR_FLOAT, MR_BOOLEAN, MR_BYTES, MR_JSON, MR_ANY };          /* kinds */
#define MR_READ true, false
#define MR_WRITE false, true
#define MR_EDIT true, true

typedef struct { uint8_t level; mr_text key; uint8_t kind; bool read, write; } mr_field;
#define MR_TEXT_OF(literal) { literal, sizeof(literal) - 1 }
#define MR_FIELD(level, key, kind, access) { level, MR_TEXT_OF(key), kind, access }

/* --- a batch and its patch ---------------------------------------------------------------------------------------- */

typedef struct { mr_rows rows; struct { uint32_t *at; size_t length; } ends; struct { char *at; size_t length; } bytes; } mr_texts;
typedef struct { mr_rows rows; struct { int64_t *at; size_t length; } values; } mr_numbers;
typedef struct { uint8_t is_numbers; union { mr_texts texts; mr_numbers numbers; }; } mr_column;
typedef struct { uint16_t field; mr_texts cells; } mr_text_edits;
typedef struct { uint16_t field; mr_numbers cells; } mr_number_edits;
typedef struct { uint16_t field; mr_rows rows; } mr_unset;

typedef struct {
    mr_rows drop;
    struct { const mr_field *at; size_t length; } extra;
    struct { mr_text_edits *at; size_t length; } texts;
    struct { mr_number_edits *at; size_t length; } numbers;
    struct { mr_unset *at; size_t length; } unsets;
} mr_patch;

typedef struct {
    uint8_t signal;                /* 0 spans, 1 log records */
    uint32_t rows;
    mr_rows resources, scopes;     /* the first rows of the runs */
    const mr_column *columns;      /* one for each field that is read, in order */
    size_t column_count;
    mr_patch patch;                /* what transform() fills in; lists of zero length change nothing */
} mr_batch;

#ifndef MR_OTHER_WORLD /* defined by a plugin of another world, which exports that world's functions itself */
/* The plugin's work; NULL, or a literal that says why this batch cannot be transformed. */
static const char *transform(mr_batch *batch);
#endif

/* --- memory ------------------------------------------------------------------------------------------------------- */

#ifdef __wasm__
extern unsigned char __heap_base;
static uintptr_t mr_top, mr_kept;

/* Memory until the end of the call; what `configure` takes stays. A plugin that needs too much is trapped. */
static void *mr_take(size_t size, size_t alignment) {
    if (mr_top == 0) mr_top = mr_kept = (uintptr_t)&__heap_base;
    uintptr_t at = (mr_top + alignment - 1) & ~(uintptr_t)(alignment - 1);
    size_t pages = __builtin_wasm_memory_size(0);
    if (at + size < at) __builtin_trap();
    mr_top = at + size;
    if (mr_top > pages << 16) {
        size_t more = ((mr_top - (pages << 16)) + 0xffff) >> 16;
        /* Twice what there is, so that growing stays rare; if there is no room for that, what is needed. */
        size_t wish = more > pages ? more : pages;
        if (__builtin_wasm_memory_grow(0, wish) == (size_t)-1 && __builtin_wasm_memory_grow(0, more) == (size_t)-1) __builtin_trap();
    }
    return (void *)at;
}

MR_EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size) {
    void *taken = mr_take(size, alignment);
    if (old_size) __builtin_memcpy(taken, old, old_size < size ? old_size : size);
    return taken;
}
#else
void *mr_take(size_t size, size_t alignment);
#endif

/* --- reading and writing cells ------------------------------------------------------------------------------------ */

/* Cell `i` of a column. */
static inline mr_text mr_cell(const mr_texts *cells, size_t i) {
    uint32_t start = i ? cells->ends.at[i - 1] : 0;
    return (mr_text){ cells->bytes.at + start, cells->ends.at[i] - start };
}

/* The row of cell `i`: with no list of rows every row has its cell. */
static inline uint32_t mr_row(const mr_rows *rows, size_t i) { return rows->length ? rows->at[i] : (uint32_t)i; }

/* Edits of a field with room for as many cells and bytes. */
static inline mr_text_edits *mr_edit_texts(mr_batch *batch, uint16_t field, size_t cells, size_t bytes) {
    mr_text_edits *edits = mr_take(sizeof *edits, 8);
    *edits = (mr_text_edits){ .field = field };
    edits->cells.rows.at = mr_take(cells * 4, 4);
    edits->cells.ends.at = mr_take(cells * 4, 4);
    edits->cells.bytes.at = mr_take(bytes, 1);
    batch->patch.texts.at = edits;
    batch->patch.texts.length = 1;
    return edits;
}

/* Appends to the cell that is being written. */
static inline void mr_append(mr_text_edits *edits, const char *at, size_t length) {
    __builtin_memcpy(edits->cells.bytes.at + edits->cells.bytes.length, at, length);
    edits->cells.bytes.length += length;
}

/* Ends the cell, which is this row's; rows must ascend. */
static inline void mr_end(mr_text_edits *edits, uint32_t row) {
    edits->cells.rows.at[edits->cells.rows.length++] = row;
    edits->cells.ends.at[edits->cells.ends.length++] = (uint32_t)edits->cells.bytes.length;
}

/* Where `byte` is for the first time, or `length`. Eight bytes a turn: the time limit is checked at every turn of a loop. */
static inline size_t mr_find(const char *at, size_t length, char byte) {
    const uint64_t ones = 0x0101010101010101u, wanted = ones * (unsigned char)byte;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        uint64_t word;
        __builtin_memcpy(&word, at + i, 8);
        word ^= wanted;
        word = (word - ones) & ~word & (ones << 7);
        if (word) return i + (size_t)(__builtin_ctzll(word) >> 3);
    }
    for (; i < length && at[i] != byte; i++) {}
    return i;
}

/* --- the exports of the world ------------------------------------------------------------------------------------- */

typedef struct { mr_text name, version, description, config_schema; } mr_info;
typedef struct {
    struct { const uint8_t *at; size_t length; } signals;
    struct { const mr_field *at; size_t length; } fields;
    uint32_t max_rows;
    bool fail_closed;
    struct { const void *at; size_t length; } hints;
} mr_setup;
typedef struct { uint8_t is_error; union { mr_setup setup; mr_text error; }; } mr_configured;
typedef struct { uint8_t is_error; union { mr_patch patch; mr_text error; }; } mr_transformed;
typedef struct { uint8_t is_error; mr_text error; } mr_restored;

#ifdef __wasm__
_Static_assert(sizeof(mr_field) == 16 && sizeof(mr_column) == 28 && sizeof(mr_text_edits) == 28, "laid out as in wit/");
_Static_assert(sizeof(mr_number_edits) == 20 && sizeof(mr_unset) == 12 && sizeof(mr_patch) == 40, "laid out as in wit/");
_Static_assert(sizeof(mr_configured) == 36 && sizeof(mr_transformed) == 44, "laid out as in wit/");
#endif

MR_IMPORT("millrace:plugin/log@1.0.0", "log") void mr_log(uint32_t severity, const char *at, size_t length);
MR_IMPORT("millrace:plugin/rest@1.0.0", "[resource-drop]batch") void mr_return_batch(int32_t batch);

#define MR_SPANS 0
#define MR_LOGS 1
#define MR_SPANS_AND_LOGS 0, 1

static inline mr_text mr_from_literal(const char *literal) {
    size_t length = 0;
    while (literal[length]) length++;
    return (mr_text){ literal, length };
}

#define MR_PLUGIN(name_, version_, description_, fields_, ...)                                                          \
    MR_EXPORT("millrace:plugin/lifecycle@1.0.0#describe") const mr_info *mr_describe(void) {                            \
        static const mr_info info = { MR_TEXT_OF(name_), MR_TEXT_OF(version_), MR_TEXT_OF(description_), { 0, 0 } };    \
        return &info;                                                                                                   \
    }                                                                                                                   \
    MR_EXPORT("millrace:plugin/lifecycle@1.0.0#configure") const mr_configured *mr_configure(const char *at, size_t length) { \
        static const uint8_t signals[] = { __VA_ARGS__ };                                                               \
        static mr_configured configured;                                                                                \
        const char *wrong = MR_CONFIGURE(at, length);                                                                   \
        mr_keep();                                                                                                      \
        configured = (mr_configured){ .is_error = wrong != 0 };                                                         \
        if (wrong) {                                                                                                    \
            configured.error = mr_from_literal(wrong);                                                                  \
            return &configured;                                                                                         \
        }                                                                                                               \
        configured.setup.signals.at = signals;                                                                          \
        configured.setup.signals.length = sizeof signals;                                                               \
        configured.setup.fields.at = fields_;                                                                           \
        configured.setup.fields.length = sizeof fields_ / sizeof fields_[0];                                            \
        configured.setup.fail_closed = MR_FAIL_CLOSED;                                                                  \
        return &configured;                                                                                             \
    }

/* Define this before the header as a function of the operator's JSON; it answers NULL, or a literal that says what is wrong. */
#ifndef MR_CONFIGURE
#define MR_CONFIGURE(at, length) ((void)(at), (void)(length), (const char *)0)
#endif
/* Define as true for a plugin that removes what must not be kept. */
#ifndef MR_FAIL_CLOSED
#define MR_FAIL_CLOSED false
#endif

#ifdef __wasm__
static inline void mr_keep(void) { mr_kept = mr_top; }

MR_EXPORT("millrace:plugin/lifecycle@1.0.0#save") const mr_text *mr_save(void) {
    static const mr_text nothing;
    return &nothing;
}

MR_EXPORT("millrace:plugin/lifecycle@1.0.0#restore") const mr_restored *mr_restore(const char *at, size_t length) {
    static const mr_restored done;
    (void)at, (void)length;
    mr_top = mr_kept;
    return &done;
}

#ifndef MR_OTHER_WORLD
MR_EXPORT("millrace:plugin/transformer@1.0.0#transform")
const mr_transformed *mr_transform(uint32_t signal, uint32_t rows, uint32_t *resources, size_t resource_count,
                                   uint32_t *scopes, size_t scope_count, const mr_column *columns, size_t column_count,
                                   int32_t all) {
    static mr_transformed answer;
    mr_batch batch = { .signal = (uint8_t)signal, .rows = rows, .columns = columns, .column_count = column_count };
    batch.resources = (mr_rows){ resources, resource_count };
    batch.scopes = (mr_rows){ scopes, scope_count };
    mr_return_batch(all);
    const char *wrong = transform(&batch);
    answer.is_error = wrong != 0;
    if (wrong) answer.error = mr_from_literal(wrong);
    else answer.patch = batch.patch;
    return &answer;
}

MR_EXPORT("cabi_post_millrace:plugin/transformer@1.0.0#transform") void mr_transformed_read(const void *answer) {
    (void)answer;
    mr_top = mr_kept;
}
#endif
#else
static inline void mr_keep(void) {}
#endif

#endif

/* Runs the plugin natively: cc -o test test.c && ./test */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "c-redact.c"

void *mr_take(size_t size, size_t alignment) {
    static char memory[1 << 16];
    static size_t top;
    top = (top + alignment - 1) / alignment * alignment;
    assert(top + size <= sizeof memory);
    top += size;
    return memory + top - size;
}

int main(void) {
    char bytes[] = "http://shop/?card=4711http://shop/?";
    uint32_t ends[] = { 22, 22, 35 }, rows[] = { 1, 4, 7 };
    mr_column column = { .texts = { { rows, 3 }, { ends, 3 }, { bytes, sizeof bytes - 1 } } };
    mr_batch batch = { .rows = 9, .columns = &column, .column_count = 1 };
    assert(transform(&batch) == 0);
    assert(batch.patch.texts.length == 1 && batch.patch.drop.length == 0);
    const mr_texts *cells = &batch.patch.texts.at->cells;
    assert(cells->rows.length == 2 && cells->rows.at[0] == 1 && cells->rows.at[1] == 7);
    mr_text first = mr_cell(cells, 0), second = mr_cell(cells, 1);
    assert(first.length == 21 && memcmp(first.at, "http://shop/?REDACTED", 21) == 0);
    assert(second.length == 21 && cells->bytes.length == 42);
    assert(mr_find("0123456789abcdef?", 17, '?') == 16 && mr_find("0123456789", 10, '?') == 10 && mr_find("01?3456789?", 11, '?') == 2);

    column.texts.rows = (mr_rows){ 0 };
    batch = (mr_batch){ .rows = 3, .columns = &column, .column_count = 1 };
    assert(transform(&batch) == 0 && batch.patch.texts.at->cells.rows.at[1] == 2);
    column.is_numbers = 1;
    assert(transform(&batch) != 0);
    assert(mr_configure("{}", 2)->setup.fields.length == 1 && mr_describe()->name.length == 8);
    puts("c-redact: 1 passed");
    return 0;
}

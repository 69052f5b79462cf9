/* A main for the fuzz targets where there is no libFuzzer: runs them on the files it is given, so
 * that any compiler can replay what a fuzzer has found. */
#include "check.h"

#include "input.h"

int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        size_t room = 1 << 20, length;
        uint8_t *bytes = malloc(room), *exact;

        current_test = names[i];
        EXPECT(file != NULL && bytes != NULL);
        length = fread(bytes, 1, room, file);
        EXPECT(feof(file));
        fclose(file);
        exact = malloc(length + 1); /* so that a sanitizer sees who reads on */
        EXPECT(exact != NULL);
        memcpy(exact, bytes, length);
        free(bytes);
        bytes = realloc(exact, length == 0 ? 1 : length);
        EXPECT(bytes != NULL);
        LLVMFuzzerTestOneInput(bytes, length);
        free(bytes);
    }
    return 0;
}

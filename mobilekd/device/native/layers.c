/* What layers took, kept in memory while models run and written when they are done. */
#include "mkdrun.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    char *name, *operator;
    uint64_t ns;
} Layer;

static Layer *layers;
static size_t count, room;

void record_layer(const char *name, const char *operator, uint64_t ns) {
    if (count == room) {
        room = room ? 2 * room : 4096;
        layers = realloc(layers, room * sizeof *layers);
        if (!layers)
            fail(EXIT_RUN, "run", "no memory for %zu layers", room);
    }
    layers[count++] = (Layer){strdup(name), strdup(operator), ns};
}

void write_layers(const char *file) {
    unlink(file); /* the name may be a link to a file that others share */
    FILE *out = fopen(file, "w");
    if (!out)
        fail(EXIT_IO, "io", "%s: %s", file, strerror(errno));
    for (size_t i = 0; i < count; i++) {
        fputs("{\"name\":", out);
        print_string(out, layers[i].name);
        fputs(",\"operator\":", out);
        print_string(out, layers[i].operator);
        fprintf(out, ",\"ns\":%" PRIu64 "}\n", layers[i].ns);
    }
    if (fclose(out) != 0)
        fail(EXIT_IO, "io", "%s: %s", file, strerror(errno));
}

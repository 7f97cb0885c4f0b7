/* mkdrun: what the command line and the three runtimes know of each other. */
#ifndef MKDRUN_H
#define MKDRUN_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { EXIT_USAGE = 2, EXIT_SYMBOL = 3, EXIT_LOAD = 4, EXIT_RUN = 5, EXIT_IO = 6 };
enum { MAX_TENSORS = 16 };

typedef struct {
    int count;
    size_t bytes[MAX_TENSORS];
} Tensors;

/* One runtime. Every function ends the process by `fail` when it can't do its work. */
typedef struct {
    const char *name;
    /* Load the shared library and find its functions. */
    void (*open)(const char *library);
    /* Make a model ready to run; fill in the packed bytes of its inputs and outputs. */
    void (*load)(const char *model, int threads, Tensors *in, Tensors *out);
    void (*write)(int index, const void *data);
    void (*invoke)(void);
    void (*read)(int index, void *data);
    /* NULL where the runtime does not tell. */
    const char *(*version)(void);
    /* What each layer costs: asked for before `load`, recorded between `from` and `to`, which writes the file. */
    void (*profile)(void);
    void (*profile_from)(void);
    void (*profile_to)(const char *file);
} Runtime;

extern const Runtime litert, onnxruntime, mnn;

/* Print {"ok":false,...} as the last line of stdout and end the process. */
__attribute__((noreturn, format(printf, 3, 4))) void fail(int code, const char *stage, const char *text, ...);

/* Nanoseconds of a clock that never goes back. */
uint64_t clock_ns(void);

/* Keep what one layer took in one run; the names are copied. Cheap enough to be called between two layers. */
void record_layer(const char *name, const char *operator, uint64_t ns);
/* Write what was kept, one JSON object a line. */
void write_layers(const char *file);

/* Write a string of JSON. */
void print_string(FILE *out, const char *text);

void *open_library(const char *path);
/* Return the address of a symbol; fail where the library has none. */
void *symbol(void *library, const char *name);
/* Zeroed memory on a cache line, with slack: XNNPACK reads up to 16 bytes past an input. */
void *aligned_memory(size_t bytes);

#endif

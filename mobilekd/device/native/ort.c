/* ONNX Runtime, through its C API: a table of functions that only grows at its end, so an index names one for good. */
#include "mkdrun.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { API_VERSION = 21, LOG_WARNING = 2, OPTIMIZE_ALL = 99, ARENA = 1, MEMORY_DEFAULT = 0, MAX_RANK = 16 };

enum {
    GET_ERROR_MESSAGE = 2,
    CREATE_ENV = 3,
    DISABLE_TELEMETRY = 6,
    CREATE_SESSION = 7,
    RUN = 9,
    CREATE_SESSION_OPTIONS = 10,
    ENABLE_PROFILING = 14,
    SET_OPTIMIZATION = 23,
    SET_INTRA_OP_THREADS = 24,
    SET_INTER_OP_THREADS = 25,
    INPUT_COUNT = 30,
    OUTPUT_COUNT = 31,
    INPUT_TYPE = 33,
    OUTPUT_TYPE = 34,
    INPUT_NAME = 36,
    OUTPUT_NAME = 37,
    TENSOR_OF_MEMORY = 49,
    TENSOR_INFO = 55,
    ELEMENT_TYPE = 60,
    RANK = 61,
    DIMENSIONS = 62,
    CPU_MEMORY = 69,
    DEFAULT_ALLOCATOR = 78,
    END_PROFILING = 110,
    ADD_CONFIG = 130,
};

typedef void *Handle;
typedef Handle Status; /* NULL is success */

typedef struct {
    const void *const *(*api)(uint32_t version);
    const char *(*version)(void);
} Base;

typedef Status TypeOf(Handle session, size_t index, Handle *type);
typedef Status NameOf(Handle session, size_t index, Handle allocator, char **name);
typedef Status CountOf(Handle session, size_t *count);

static const Base *base;
static const void *const *table;
static Handle session;
static int profiling;
static Tensors ins, outs;
static char *in_names[MAX_TENSORS], *out_names[MAX_TENSORS];
static void *in_memory[MAX_TENSORS], *out_memory[MAX_TENSORS];
static Handle in_values[MAX_TENSORS], out_values[MAX_TENSORS];

/* The function at an index, as a function of that type. */
#define CALL(index, type) (*(__typeof__(type) *const *)&table[index])

static void check_at(Status status, int code, const char *stage) {
    if (status)
        fail(code, stage, "%s", CALL(GET_ERROR_MESSAGE, const char *(Handle))(status));
}

static void check(Status status) { check_at(status, EXIT_LOAD, "load"); }

static void open_ort(const char *path) {
    const Base *(*get)(void);
    /* Since 1.29 the builds for Linux report to their maker unless told before they are loaded, from a thread whose
     * instructions would be counted too. */
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    *(void **)&get = symbol(open_library(path), "OrtGetApiBase");
    base = get();
    table = base->api(API_VERSION);
    if (!table)
        fail(EXIT_SYMBOL, "dlopen", "ONNX Runtime %s has no API of version %d", base->version(), API_VERSION);
}

static size_t element_bytes(int type) {
    switch (type) {
    case 2: case 3: case 9: /* uint8, int8, bool */
        return 1;
    case 4: case 5: case 10: case 16: /* uint16, int16, float16, bfloat16 */
        return 2;
    case 1: case 6: case 12: /* float, int32, uint32 */
        return 4;
    case 7: case 11: case 13: /* int64, double, uint64 */
        return 8;
    default:
        fail(EXIT_LOAD, "load", "a tensor has element type %d, which is not plain numbers", type);
    }
}

static Handle make_value(Handle type, void **memory, size_t *bytes) {
    Handle info, value, place;
    int64_t shape[MAX_RANK];
    size_t rank, size;
    int element;
    check(CALL(TENSOR_INFO, Status(Handle, Handle *))(type, &info));
    if (!info)
        fail(EXIT_LOAD, "load", "an input or output is not a tensor");
    check(CALL(ELEMENT_TYPE, Status(Handle, int *))(info, &element));
    check(CALL(RANK, Status(Handle, size_t *))(info, &rank));
    if (rank > MAX_RANK)
        fail(EXIT_LOAD, "load", "a tensor has %zu dimensions, more than %d", rank, MAX_RANK);
    check(CALL(DIMENSIONS, Status(Handle, int64_t *, size_t))(info, shape, rank));
    size = element_bytes(element);
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] < 1 && i == 0)
            shape[i] = 1; /* a batch of any size: ours is 1 */
        if (shape[i] < 1)
            fail(EXIT_LOAD, "load", "dimension %zu of a tensor is not fixed", i);
        size *= (size_t)shape[i];
    }
    *memory = aligned_memory(size);
    *bytes = size;
    check(CALL(CPU_MEMORY, Status(int, int, Handle *))(ARENA, MEMORY_DEFAULT, &place));
    check(CALL(TENSOR_OF_MEMORY, Status(Handle, void *, size_t, const int64_t *, size_t, int, Handle *))(
        place, *memory, size, shape, rank, element, &value));
    return value;
}

static void make_values(
    CountOf *count_of, TypeOf *type_of, NameOf *name_of, Tensors *tensors, char **names, void **memory, Handle *values) {
    Handle allocator, type;
    size_t count;
    check(count_of(session, &count));
    if (count > MAX_TENSORS)
        fail(EXIT_LOAD, "load", "the model has %zu inputs or outputs, more than %d", count, MAX_TENSORS);
    check(CALL(DEFAULT_ALLOCATOR, Status(Handle *))(&allocator));
    tensors->count = (int)count;
    for (size_t i = 0; i < count; i++) {
        check(name_of(session, i, allocator, &names[i]));
        check(type_of(session, i, &type));
        values[i] = make_value(type, &memory[i], &tensors->bytes[i]);
    }
}

/* x86 without VNNI: int8 kernels add pairs in int16, which saturates, unless asked for those that do not. */
static int saturates(void) {
#ifdef __x86_64__
    char line[4096];
    int vnni = 0;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && !vnni && fgets(line, sizeof line, file))
        vnni = strstr(line, "vnni") != NULL;
    if (file)
        fclose(file);
    return !vnni;
#else
    return 0;
#endif
}

static void load_ort(const char *model, int threads, Tensors *in, Tensors *out) {
    Handle environment, options;
    check(CALL(CREATE_ENV, Status(int, const char *, Handle *))(LOG_WARNING, "mkdrun", &environment));
    check(CALL(DISABLE_TELEMETRY, Status(Handle))(environment));
    check(CALL(CREATE_SESSION_OPTIONS, Status(Handle *))(&options));
    check(CALL(SET_OPTIMIZATION, Status(Handle, int))(options, OPTIMIZE_ALL));
    check(CALL(SET_INTRA_OP_THREADS, Status(Handle, int))(options, threads));
    check(CALL(SET_INTER_OP_THREADS, Status(Handle, int))(options, 1));
    if (saturates())
        check(CALL(ADD_CONFIG, Status(Handle, const char *, const char *))(options, "session.x64quantprecision", "1"));
    if (profiling)
        check(CALL(ENABLE_PROFILING, Status(Handle, const char *))(options, "ort-profile"));
    check(CALL(CREATE_SESSION, Status(Handle, const char *, Handle, Handle *))(environment, model, options, &session));
    make_values(CALL(INPUT_COUNT, CountOf), CALL(INPUT_TYPE, TypeOf), CALL(INPUT_NAME, NameOf), &ins, in_names,
                in_memory, in_values);
    make_values(CALL(OUTPUT_COUNT, CountOf), CALL(OUTPUT_TYPE, TypeOf), CALL(OUTPUT_NAME, NameOf), &outs, out_names,
                out_memory, out_values);
    *in = ins;
    *out = outs;
}

static void write_ort(int index, const void *data) { memcpy(in_memory[index], data, ins.bytes[index]); }

static void invoke_ort(void) {
    typedef Status Run(Handle session, Handle options, char *const *in_names, Handle const *in, size_t in_count,
                       char *const *out_names, size_t out_count, Handle *out);
    Status status = CALL(RUN, Run)(session, NULL, in_names, in_values, (size_t)ins.count, out_names,
                                   (size_t)outs.count, out_values);
    check_at(status, EXIT_RUN, "run");
}

static void read_ort(int index, void *data) { memcpy(data, out_memory[index], outs.bytes[index]); }

static const char *version_ort(void) { return base->version(); }

static void profile_ort(void) { profiling = 1; }

/* Its profiler is on from the load, so the trace has the runs before, too: whoever reads it knows how many. */
static void profile_from_ort(void) {}

static void profile_to_ort(const char *file) {
    Handle allocator;
    char *trace;
    check_at(CALL(DEFAULT_ALLOCATOR, Status(Handle *))(&allocator), EXIT_RUN, "run");
    check_at(CALL(END_PROFILING, Status(Handle, Handle, char **))(session, allocator, &trace), EXIT_RUN, "run");
    if (rename(trace, file) != 0)
        fail(EXIT_IO, "io", "%s: %s", file, strerror(errno));
}

const Runtime onnxruntime = {
    "onnxruntime", open_ort,    load_ort,         write_ort,      invoke_ort, read_ort,
    version_ort,   profile_ort, profile_from_ort, profile_to_ort,
};

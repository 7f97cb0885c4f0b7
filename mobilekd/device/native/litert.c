/* LiteRT 2.2 and later, through the C functions of libLiteRt.so. */
#include "mkdrun.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CPU = 1, LOCK_READ = 0, LOCK_WRITE = 1, MAX_RANK = 8 };

typedef void *Handle;

typedef struct {
    int element;
    unsigned int rank : 7, has_strides : 1;
    int32_t dimensions[MAX_RANK];
    uint32_t strides[MAX_RANK];
} RankedType;

/* One event of the profiler, in the layout that 2.3 really has. */
typedef struct {
    const char *tag;
    int type;
    uint64_t started_us, elapsed_us;
    int64_t memory[6];
    uint64_t metadata[2];
    int source;
} Event;

_Static_assert(sizeof(Event) == 104, "the layout of ProfiledEventData on 64-bit systems");

enum { OPERATOR = 2, OPERATOR_OF_DELEGATE = 8, LAST_SOURCE = 2, FILL = 0xaa, UNTOUCHED = 64 };

typedef int BufferOf(Handle compiled, size_t signature, size_t index, Handle *requirements);
typedef int TensorOf(Handle signature, size_t index, Handle *tensor);
typedef int CountOf(Handle signature, size_t *count);

static struct {
    int (*environment)(int options, const void *values, Handle *environment);
    int (*model)(Handle environment, const char *file, Handle *model);
    int (*options)(Handle *options);
    int (*accelerators)(Handle options, int set);
    int (*opaque)(const char *name, void *payload, void (*release)(void *), Handle *opaque);
    int (*add_opaque)(Handle options, Handle opaque);
    int (*compile)(Handle environment, Handle model, Handle options, Handle *compiled);
    int (*signature)(Handle model, size_t index, Handle *signature);
    CountOf *inputs, *outputs;
    TensorOf *input, *output;
    int (*type)(Handle tensor, RankedType *type);
    BufferOf *input_buffer, *output_buffer;
    int (*buffer)(Handle environment, const RankedType *type, Handle requirements, Handle *buffer);
    int (*bytes)(Handle buffer, size_t *bytes);
    int (*lock)(Handle buffer, void **memory, int mode);
    int (*unlock)(Handle buffer);
    int (*run)(Handle compiled, size_t signature, size_t inputs, Handle *in, size_t outputs, Handle *out);
    int (*profiler)(Handle compiled, Handle *profiler);
    int (*start)(Handle profiler);
    int (*reset)(Handle profiler);
    int (*stop)(Handle profiler);
    int (*event_count)(Handle profiler, int *count);
    int (*events)(Handle profiler, int count, Event *events);
} api;

static void *library;
static int recording;
static Handle profiler, environment, compiled, in_buffers[MAX_TENSORS], out_buffers[MAX_TENSORS];
static Tensors ins, outs;

static void check(int status, int code, const char *stage, const char *what) {
    if (status != 0)
        fail(code, stage, "LiteRT: %s ended with status %d", what, status);
}

static void open_litert(const char *path) {
    library = open_library(path);
    /* Until 2.1 a model was made without an environment; this function came with the change. */
    if (!dlsym(library, "LiteRtCreateModelFromFd"))
        fail(EXIT_SYMBOL, "dlopen", "%s is no LiteRT of 2.2 or later", path);
    *(void **)&api.environment = symbol(library, "LiteRtCreateEnvironment");
    *(void **)&api.model = symbol(library, "LiteRtCreateModelFromFile");
    *(void **)&api.options = symbol(library, "LiteRtCreateOptions");
    *(void **)&api.accelerators = symbol(library, "LiteRtSetOptionsHardwareAccelerators");
    *(void **)&api.opaque = symbol(library, "LiteRtCreateOpaqueOptions");
    *(void **)&api.add_opaque = symbol(library, "LiteRtAddOpaqueOptions");
    *(void **)&api.compile = symbol(library, "LiteRtCreateCompiledModel");
    *(void **)&api.signature = symbol(library, "LiteRtGetModelSignature");
    *(void **)&api.inputs = symbol(library, "LiteRtGetNumSignatureInputs");
    *(void **)&api.outputs = symbol(library, "LiteRtGetNumSignatureOutputs");
    *(void **)&api.input = symbol(library, "LiteRtGetSignatureInputTensorByIndex");
    *(void **)&api.output = symbol(library, "LiteRtGetSignatureOutputTensorByIndex");
    *(void **)&api.type = symbol(library, "LiteRtGetRankedTensorType");
    *(void **)&api.input_buffer = symbol(library, "LiteRtGetCompiledModelInputBufferRequirements");
    *(void **)&api.output_buffer = symbol(library, "LiteRtGetCompiledModelOutputBufferRequirements");
    *(void **)&api.buffer = symbol(library, "LiteRtCreateManagedTensorBufferFromRequirements");
    *(void **)&api.bytes = symbol(library, "LiteRtGetTensorBufferPackedSize");
    *(void **)&api.lock = symbol(library, "LiteRtLockTensorBuffer");
    *(void **)&api.unlock = symbol(library, "LiteRtUnlockTensorBuffer");
    *(void **)&api.run = symbol(library, "LiteRtRunCompiledModel");
}

static void make_buffers(
    Handle signature, CountOf *count_of, TensorOf *tensor_of, BufferOf *buffer_of, Handle *buffers, Tensors *tensors) {
    size_t count = 0;
    check(count_of(signature, &count), EXIT_LOAD, "load", "counting tensors");
    if (count > MAX_TENSORS)
        fail(EXIT_LOAD, "load", "the model has %zu inputs or outputs, more than %d", count, MAX_TENSORS);
    tensors->count = (int)count;
    for (size_t i = 0; i < count; i++) {
        Handle tensor, requirements;
        RankedType type;
        check(tensor_of(signature, i, &tensor), EXIT_LOAD, "load", "finding a tensor");
        check(api.type(tensor, &type), EXIT_LOAD, "load", "reading the shape of a tensor");
        check(buffer_of(compiled, 0, i, &requirements), EXIT_LOAD, "load", "asking what a buffer must be");
        check(api.buffer(environment, &type, requirements, &buffers[i]), EXIT_LOAD, "load", "making a buffer");
        check(api.bytes(buffers[i], &tensors->bytes[i]), EXIT_LOAD, "load", "asking the size of a buffer");
    }
}

static void load_litert(const char *model_file, int threads, Tensors *in, Tensors *out) {
    Handle model, options, opaque, signature;
    char setting[64];
    snprintf(setting, sizeof setting, "num_threads = %d\n", threads);
    check(api.environment(0, NULL, &environment), EXIT_LOAD, "load", "making the environment");
    check(api.model(environment, model_file, &model), EXIT_LOAD, "load", "reading the model");
    check(api.options(&options), EXIT_LOAD, "load", "making the options");
    check(api.accelerators(options, CPU), EXIT_LOAD, "load", "choosing the CPU");
    check(api.opaque("xnnpack", strdup(setting), free, &opaque), EXIT_LOAD, "load", "setting the threads");
    check(api.add_opaque(options, opaque), EXIT_LOAD, "load", "setting the threads");
    if (api.profiler) {
        char *on = strdup("enable_profiling = true\n");
        check(api.opaque("runtime_options_string", on, free, &opaque), EXIT_LOAD, "load", "asking for a profile");
        check(api.add_opaque(options, opaque), EXIT_LOAD, "load", "asking for a profile");
    }
    check(api.compile(environment, model, options, &compiled), EXIT_LOAD, "load", "compiling the model");
    check(api.signature(model, 0, &signature), EXIT_LOAD, "load", "finding the first signature");
    make_buffers(signature, api.inputs, api.input, api.input_buffer, in_buffers, &ins);
    make_buffers(signature, api.outputs, api.output, api.output_buffer, out_buffers, &outs);
    *in = ins;
    *out = outs;
}

static void write_litert(int index, const void *data) {
    void *memory;
    check(api.lock(in_buffers[index], &memory, LOCK_WRITE), EXIT_RUN, "run", "locking an input");
    memcpy(memory, data, ins.bytes[index]);
    check(api.unlock(in_buffers[index]), EXIT_RUN, "run", "unlocking an input");
}

static void run_plainly(void) {
    int status = api.run(compiled, 0, (size_t)ins.count, in_buffers, (size_t)outs.count, out_buffers);
    check(status, EXIT_RUN, "run", "running the model");
}

static void read_litert(int index, void *data) {
    void *memory;
    check(api.lock(out_buffers[index], &memory, LOCK_READ), EXIT_RUN, "run", "locking an output");
    memcpy(data, memory, outs.bytes[index]);
    check(api.unlock(out_buffers[index]), EXIT_RUN, "run", "unlocking an output");
}

static const char *version_litert(void) { return NULL; }

static void profile_litert(void) {
    *(void **)&api.profiler = symbol(library, "LiteRtCompiledModelGetProfiler");
    *(void **)&api.start = symbol(library, "LiteRtStartProfiler");
    *(void **)&api.stop = symbol(library, "LiteRtStopProfiler");
    *(void **)&api.reset = symbol(library, "LiteRtResetProfiler");
    *(void **)&api.event_count = symbol(library, "LiteRtGetNumProfilerEvents");
    *(void **)&api.events = symbol(library, "LiteRtGetProfilerEvents");
}

static void profile_from_litert(void) {
    check(api.profiler(compiled, &profiler), EXIT_RUN, "run", "finding the profiler");
    check(api.stop(profiler), EXIT_RUN, "run", "stopping the profiler");
    recording = 1;
}

/* A kernel of the built-in set, or one of XNNPACK's; events inside of either are of another type. */
static void record_events(const Event *events, int count) {
    for (int i = 0; i < count; i++)
        if (events[i].type == OPERATOR || events[i].type == OPERATOR_OF_DELEGATE)
            record_layer(events[i].tag, events[i].tag, events[i].elapsed_us * 1000);
}

/* The layout of an event is nobody's promise: the C header of 2.3 gives one that its library does not have. So there
 * is room for larger ones, and what was written must end where ours do. */
static void check_layout(const Event *events, int count) {
    const unsigned char *end = (const unsigned char *)(events + count);
    for (int i = 0; i < UNTOUCHED; i++)
        if (end[i] != FILL)
            fail(EXIT_RUN, "run", "LiteRT: the profiler's events have a layout that is not known");
    for (int i = 0; i < count; i++)
        if (events[i].source < 0 || events[i].source > LAST_SOURCE)
            fail(EXIT_RUN, "run", "LiteRT: the profiler's events have a layout that is not known");
}

static void run_recorded(void) {
    int count;
    check(api.reset(profiler), EXIT_RUN, "run", "resetting the profiler");
    check(api.start(profiler), EXIT_RUN, "run", "starting the profiler");
    run_plainly();
    check(api.stop(profiler), EXIT_RUN, "run", "stopping the profiler");
    check(api.event_count(profiler, &count), EXIT_RUN, "run", "asking for the profile");
    if (count < 1)
        fail(EXIT_RUN, "run", "LiteRT: the profiler kept nothing");
    size_t bytes = (size_t)count * 2 * sizeof(Event);
    Event *events = memset(aligned_memory(bytes), FILL, bytes);
    check(api.events(profiler, count, events), EXIT_RUN, "run", "reading the profile");
    check_layout(events, count);
    record_events(events, count);
    free(events);
}

static void invoke_litert(void) {
    if (recording)
        run_recorded();
    else
        run_plainly();
}

static void profile_to_litert(const char *file) { write_layers(file); }

const Runtime litert = {
    "litert",       open_litert,    load_litert,         write_litert,      invoke_litert, read_litert,
    version_litert, profile_litert, profile_from_litert, profile_to_litert,
};

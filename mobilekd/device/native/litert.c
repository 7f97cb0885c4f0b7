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
} api;

static Handle environment, compiled, in_buffers[MAX_TENSORS], out_buffers[MAX_TENSORS];
static Tensors ins, outs;

static void check(int status, int code, const char *stage, const char *what) {
    if (status != 0)
        fail(code, stage, "LiteRT: %s ended with status %d", what, status);
}

static void open_litert(const char *path) {
    void *library = open_library(path);
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

static void invoke_litert(void) {
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

const Runtime litert = {
    "litert", open_litert, load_litert, write_litert, invoke_litert, read_litert, version_litert,
};

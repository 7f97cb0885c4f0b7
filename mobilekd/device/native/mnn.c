/* MNN, which has no C API: its C++ functions by their mangled names (Itanium C++ ABI).
 *
 * The records below have the layout of MNN::ScheduleConfig and MNN::BackendConfig in MNN 2.9 to 3.6. One input and one
 * output: more of them are in a std::map, whose layout is nobody's promise; only its count is read. It lies behind
 * two words in libc++, which Android's builds of MNN use, and behind five in libstdc++.
 */
#include "mkdrun.h"

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

enum { PRECISION_HIGH = 1, NHWC = 0, NCHW = 1, HOST_OFFSET = 16, TENSOR_BYTES = 256 };
enum { COUNT_IN_LIBCXX = 16, COUNT_IN_LIBSTDCXX = 40 }; /* bytes before a map's count */

typedef void *Vector[3];

/* std::function of libstdc++: what it holds, how that is copied, and how it is called. */
typedef struct {
    void *held[2];
    _Bool (*manage)(void *to, const void *from, int operation);
    _Bool (*call)(const void *held, const void *tensors, const void *const *operator);
} Function;

typedef struct {
    int memory, power, precision;
    void *shared;
} BackendConfig;

typedef struct {
    Vector saved;
    int forward_type, threads;
    struct {
        Vector inputs, outputs;
        int mode;
    } path;
    int backup_type;
    BackendConfig *backend;
} ScheduleConfig;

_Static_assert(sizeof(ScheduleConfig) == 104, "the layout of MNN::ScheduleConfig on 64-bit systems");

static struct {
    const char *(*version)(void);
    void *(*from_file)(const char *file);
    void *(*session)(void *net, const ScheduleConfig *config);
    void *(*input)(void *net, const void *session, const char *name);
    void *(*output)(void *net, const void *session, const char *name);
    const void *(*inputs)(const void *net, const void *session);
    const void *(*outputs)(const void *net, const void *session);
    int (*run)(const void *net, void *session);
    int (*layout)(const void *tensor);
    void (*make)(void *tensor, const void *like, int layout, _Bool with_memory);
    int (*bytes)(const void *tensor);
    _Bool (*to_session)(void *tensor, const void *host);
    _Bool (*to_host)(const void *tensor, void *host);
    int (*run_by_layer)(const void *net, const void *session, const Function *before, const Function *after, _Bool sync);
    const char *const *(*name)(const void *operator), *const *(*type)(const void *operator);
} api;

/* The mangled name says std::function of libstdc++ (St8function); libc++'s, as on Android, has another name and
 * another layout: there layers are not recorded. */
#define RUN_BY_LAYER \
    "_ZNK3MNN11Interpreter26runSessionWithCallBackInfoEPKNS_7SessionERKSt8functionIFbRKSt6vectorIPNS_6TensorESaIS7_EE" \
    "PKNS_12OperatorInfoEEESI_b"

static void *library;
static int recording;
static uint64_t begun_ns;

static void *net, *session, *input, *output, *host_input, *host_output;

static void open_mnn(const char *path) {
    library = open_library(path);
    *(void **)&api.version = symbol(library, "_ZN3MNN10getVersionEv");
    *(void **)&api.from_file = symbol(library, "_ZN3MNN11Interpreter14createFromFileEPKc");
    *(void **)&api.session = symbol(library, "_ZN3MNN11Interpreter13createSessionERKNS_14ScheduleConfigE");
    *(void **)&api.input = symbol(library, "_ZN3MNN11Interpreter15getSessionInputEPKNS_7SessionEPKc");
    *(void **)&api.output = symbol(library, "_ZN3MNN11Interpreter16getSessionOutputEPKNS_7SessionEPKc");
    *(void **)&api.inputs = symbol(library, "_ZNK3MNN11Interpreter18getSessionInputAllEPKNS_7SessionE");
    *(void **)&api.outputs = symbol(library, "_ZNK3MNN11Interpreter19getSessionOutputAllEPKNS_7SessionE");
    *(void **)&api.run = symbol(library, "_ZNK3MNN11Interpreter10runSessionEPNS_7SessionE");
    *(void **)&api.layout = symbol(library, "_ZNK3MNN6Tensor16getDimensionTypeEv");
    *(void **)&api.make = symbol(library, "_ZN3MNN6TensorC1EPKS0_NS0_13DimensionTypeEb");
    *(void **)&api.bytes = symbol(library, "_ZNK3MNN6Tensor4sizeEv");
    *(void **)&api.to_session = symbol(library, "_ZN3MNN6Tensor18copyFromHostTensorEPKS0_");
    *(void **)&api.to_host = symbol(library, "_ZNK3MNN6Tensor16copyToHostTensorEPS0_");
}

static void need_one(const void *map, const char *what) {
    size_t count;
    size_t offset = dlsym(library, RUN_BY_LAYER) ? COUNT_IN_LIBSTDCXX : COUNT_IN_LIBCXX;
    memcpy(&count, (const char *)map + offset, sizeof count);
    if (count != 1)
        fail(EXIT_LOAD, "load", "MNN: the model has %zu %s; models with one are run here", count, what);
}

/* Return a tensor in plain NCHW (NHWC where the model is), with memory of its own. */
static void *host_of(const void *tensor, Tensors *tensors) {
    void *host = aligned_memory(TENSOR_BYTES);
    api.make(host, tensor, api.layout(tensor) == NHWC ? NHWC : NCHW, 1);
    int bytes = api.bytes(host);
    if (bytes < 1)
        fail(EXIT_LOAD, "load", "MNN: the shape of the input or output is not fixed");
    tensors->count = 1;
    tensors->bytes[0] = (size_t)bytes;
    return host;
}

static void *memory_of(const void *host) {
    void *memory;
    memcpy(&memory, (const char *)host + HOST_OFFSET, sizeof memory);
    return memory;
}

static void load_mnn(const char *model, int threads, Tensors *in, Tensors *out) {
    static BackendConfig backend = {.precision = PRECISION_HIGH};
    static ScheduleConfig config;
    config.threads = threads;
    config.backend = &backend;
    net = api.from_file(model);
    if (!net)
        fail(EXIT_LOAD, "load", "MNN could not read the model");
    session = api.session(net, &config);
    if (!session)
        fail(EXIT_LOAD, "load", "MNN could not make a session of the model");
    need_one(api.inputs(net, session), "inputs");
    need_one(api.outputs(net, session), "outputs");
    input = api.input(net, session, NULL);
    output = api.output(net, session, NULL);
    host_input = host_of(input, in);
    host_output = host_of(output, out);
}

static void write_mnn(int index, const void *data) {
    (void)index;
    memcpy(memory_of(host_input), data, (size_t)api.bytes(host_input));
    if (!api.to_session(input, host_input))
        fail(EXIT_RUN, "run", "MNN: the input could not be copied");
}

/* Nothing is held, so there is nothing to copy or destroy. */
static _Bool manage(void *to, const void *from, int operation) {
    (void)to, (void)from, (void)operation;
    return 0;
}

static _Bool begin_layer(const void *held, const void *tensors, const void *const *operator) {
    (void)held, (void)tensors, (void)operator;
    if (recording)
        begun_ns = clock_ns();
    return 1;
}

static _Bool end_layer(const void *held, const void *tensors, const void *const *operator) {
    (void)held, (void)tensors;
    if (!recording)
        return 1;
    uint64_t ns = clock_ns() - begun_ns;
    /* A std::string begins with a pointer to its characters. */
    record_layer(*api.name(*operator), *api.type(*operator), ns);
    return 1;
}

static const Function before_layer = {{0}, manage, begin_layer}, after_layer = {{0}, manage, end_layer};

static void profile_mnn(void) {
    *(void **)&api.name = symbol(library, "_ZNK3MNN12OperatorInfo4nameEv");
    *(void **)&api.type = symbol(library, "_ZNK3MNN12OperatorInfo4typeEv");
    *(void **)&api.run_by_layer = symbol(library, RUN_BY_LAYER);
}

static void profile_from_mnn(void) { recording = 1; }

static void profile_to_mnn(const char *file) { write_layers(file); }

static void invoke_mnn(void) {
    int status = api.run_by_layer ? api.run_by_layer(net, session, &before_layer, &after_layer, 0)
                                  : api.run(net, session);
    if (status != 0)
        fail(EXIT_RUN, "run", "MNN: running the model ended with code %d", status);
}

static void read_mnn(int index, void *data) {
    (void)index;
    if (!api.to_host(output, host_output))
        fail(EXIT_RUN, "run", "MNN: the output could not be copied");
    memcpy(data, memory_of(host_output), (size_t)api.bytes(host_output));
}

static const char *version_mnn(void) { return api.version(); }

const Runtime mnn = {
    "mnn",       open_mnn,    load_mnn,         write_mnn,      invoke_mnn, read_mnn,
    version_mnn, profile_mnn, profile_from_mnn, profile_to_mnn,
};

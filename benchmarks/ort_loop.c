/* Time a float model in ONNX Runtime's C API: the loop that mobilekd's p50 is held against in bench_trust.py.
 *
 *   cc -O2 -o ort_loop ort_loop.c -ldl
 *   ort_loop LIBRARY MODEL INPUT DIMS OUTPUT DIMS THREADS WARMUP RUNS      (DIMS as 1,3,32,32)
 *
 * Prints the nanoseconds of each timed run, one a line. Exit code 2: usage, 3: the library, 4: the model or a run.
 * No header of ONNX Runtime is needed: OrtApi is a table of functions that only ever grows at its end, so an entry keeps
 * its place. The places used here are those of version 1 of the API.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_OPTIONS = 10, SET_OPTIMIZATION = 23,
       SET_INTRA_THREADS = 24, SET_INTER_THREADS = 25, CREATE_TENSOR = 49, CREATE_MEMORY_INFO = 69 };
enum { API_VERSION = 1, LOG_ERROR = 3, ALL_OPTIMIZATIONS = 99, ARENA = 1, DEFAULT_MEMORY = 0, FLOAT32 = 1, MOST_DIMS = 8 };

typedef void *status;
typedef struct {
    void *const *(*get_api)(uint32_t);
    const char *(*version)(void);
} api_base;

static void *const *api;

static void check(status failure)
{
    if (!failure)
        return;
    fprintf(stderr, "ort_loop: %s\n", ((const char *(*)(status))api[GET_ERROR_MESSAGE])(failure));
    exit(4);
}

static void *tensor(const char *dims, void *memory)
{
    int64_t shape[MOST_DIMS];
    size_t rank = 0, count = 1;
    void *value;
    for (char *end = (char *)dims; *end && rank < MOST_DIMS; rank++) {
        shape[rank] = strtoll(end, &end, 10);
        count *= (size_t)shape[rank];
        if (*end == ',')
            end++;
    }
    float *data = malloc(count * sizeof *data);
    for (size_t i = 0; i < count; i++)
        data[i] = (float)((i * 2654435761u) % 2001) / 1000.0f - 1.0f;
    check(((status(*)(void *, void *, size_t, const int64_t *, size_t, int, void **))api[CREATE_TENSOR])(
        memory, data, count * sizeof *data, shape, rank, FLOAT32, &value));
    return value;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 10) {
        fprintf(stderr, "usage: ort_loop LIBRARY MODEL INPUT DIMS OUTPUT DIMS THREADS WARMUP RUNS\n");
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    const api_base *(*base)(void) = library ? (const api_base *(*)(void))dlsym(library, "OrtGetApiBase") : NULL;
    if (!base || !(api = base()->get_api(API_VERSION))) {
        fprintf(stderr, "ort_loop: %s: %s\n", argv[1], library ? "no ONNX Runtime" : dlerror());
        return 3;
    }
    void *env, *options, *session, *memory;
    check(((status(*)(int, const char *, void **))api[CREATE_ENV])(LOG_ERROR, "ort_loop", &env));
    check(((status(*)(void **))api[CREATE_OPTIONS])(&options));
    check(((status(*)(void *, int))api[SET_OPTIMIZATION])(options, ALL_OPTIMIZATIONS));
    check(((status(*)(void *, int))api[SET_INTRA_THREADS])(options, atoi(argv[7])));
    check(((status(*)(void *, int))api[SET_INTER_THREADS])(options, 1));
    check(((status(*)(void *, const char *, const void *, void **))api[CREATE_SESSION])(env, argv[2], options, &session));
    check(((status(*)(int, int, void **))api[CREATE_MEMORY_INFO])(ARENA, DEFAULT_MEMORY, &memory));

    const char *input_name = argv[3], *output_name = argv[5];
    const void *input = tensor(argv[4], memory);
    void *output = tensor(argv[6], memory);
    int warmup = atoi(argv[8]), runs = atoi(argv[9]);
    int64_t *took_ns = calloc((size_t)runs, sizeof *took_ns);
    status (*run)(void *, void *, const char *const *, const void *const *, size_t, const char *const *, size_t, void **) =
        (status(*)(void *, void *, const char *const *, const void *const *, size_t, const char *const *, size_t,
                   void **))api[RUN];
    for (int i = -warmup; i < runs; i++) {
        int64_t started = now_ns();
        status failure = run(session, NULL, &input_name, &input, 1, &output_name, 1, &output);
        if (i >= 0)
            took_ns[i] = now_ns() - started;
        check(failure);
    }
    for (int i = 0; i < runs; i++)
        printf("%lld\n", (long long)took_ns[i]);
    return 0;
}

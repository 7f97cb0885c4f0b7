/* mkdrun: run one model on raw tensors, and time it. Every runtime is loaded by dlopen.
 *
 * mkdrun --backend litert|onnxruntime|mnn --library LIB... --model M --in FILE... [--out FILE...]
 *        [--warmup N] [--runs N] [--threads N] [--cores LIST|MASK] [--limit-ms M] [--time-sample I]
 *        [--profile-out FILE]
 *
 * Libraries are loaded in the order given; the last is the runtime, those before it are what it needs.
 * An input file holds the same number of raw tensors as every other, in the model's own type and layout. All samples
 * are run once, in order, into the output files; then one of them is run again and again for its time. The last line
 * of stdout is a JSON object; everything that a runtime prints goes to stderr. With MKD_MARK=1 in the environment
 * every timed run lies between two calls of a system call that no kernel has, for a plug-in that counts.
 *
 * --profile-out has every timed run divided into layers: a line {"name","operator","ns"} for each layer of each run,
 * or, of ONNX Runtime, its own trace of all runs. The times of such runs are not those of runs without. With
 * MKD_CLOCK=FILE in the environment every clock shows the number that the plug-in writes there on a mark, as
 * microseconds: profilers then count instructions without knowing.
 *
 * CC -std=gnu11 -O2 -rdynamic -o mkdrun mkdrun.c layers.c litert.c ort.c mnn.c python_stubs.c -ldl
 * For Android's own C library, CC is the NDK's aarch64-linux-android24-clang.
 */
#define _GNU_SOURCE
#include "mkdrun.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { PROTOCOL = 1, MARK_SYSCALL = 0x4d4b44, MARK_BEGIN = 1, MARK_END = 2, MARK_CLOCK = 3 };

typedef struct {
    const Runtime *runtime;
    const char *libraries[MAX_TENSORS], *model, *in[MAX_TENSORS], *out[MAX_TENSORS], *cores, *profile;
    int library_count, in_count, out_count;
    long warmup, runs, threads, limit_ms, time_sample;
} Options;

typedef struct {
    uint64_t *ns;
    size_t count, room;
    uint64_t cpu_ns;
} Times;

static FILE *answer; /* the stdout that we were started with */
static int clock_file = -1;

void print_string(FILE *out, const char *text) {
    fputc('"', out);
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at == '"' || *at == '\\')
            fprintf(out, "\\%c", *at);
        else if (*at < 0x20 || *at >= 0x7f)
            fprintf(out, "\\u%04x", *at);
        else
            fputc(*at, out);
    }
    fputc('"', out);
}

/* Runtimes crash in their destructors more often than in their work, so none is run. */
__attribute__((noreturn)) static void leave(int code) {
    fflush(stdout);
    fflush(stderr);
    if (fflush(answer) != 0)
        code = EXIT_IO;
    _exit(code);
}

void fail(int code, const char *stage, const char *text, ...) {
    char message[1024];
    va_list values;
    va_start(values, text);
    vsnprintf(message, sizeof message, text, values);
    va_end(values);
    fprintf(answer, "{\"ok\":false,\"protocol\":%d,\"stage\":\"%s\",\"error\":", PROTOCOL, stage);
    print_string(answer, message);
    fputs("}\n", answer);
    leave(code);
}

void *open_library(const char *path) {
    void *library = dlopen(path, RTLD_LAZY | RTLD_GLOBAL);
    if (!library)
        fail(EXIT_SYMBOL, "dlopen", "%s", dlerror());
    return library;
}

void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found)
        fail(EXIT_SYMBOL, "dlopen", "the library has no symbol %s", name);
    return found;
}

void *aligned_memory(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes + 64) != 0)
        fail(EXIT_LOAD, "load", "no memory for %zu bytes", bytes);
    return memset(memory, 0, bytes + 64);
}

/* Stands before the C library's for the runtimes, too: the program is linked with -rdynamic. */
int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t clock, struct timespec *at);
    uint64_t instructions;
    if (clock_file < 0) {
        if (!real)
            *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
        return real(clock, at);
    }
    syscall(MARK_SYSCALL, MARK_CLOCK, 0);
    if (pread(clock_file, &instructions, sizeof instructions, 0) != sizeof instructions)
        abort();
    at->tv_sec = (time_t)(instructions / 1000000);
    at->tv_nsec = (long)(instructions % 1000000 * 1000);
    return 0;
}

static uint64_t now_ns(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

uint64_t clock_ns(void) { return now_ns(CLOCK_MONOTONIC); }

static long resident_kb(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    long pages = 0;
    if (!file)
        return 0;
    if (fscanf(file, "%*d %ld", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Not getrusage's peak: that one begins with the process that started us. */
static long peak_kb(void) {
    char line[256];
    long kb = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && !kb && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %ld", &kb) != 1)
            kb = 0;
    if (file)
        fclose(file);
    return kb;
}

static long number(const char *option, const char *text, long least) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least)
        fail(EXIT_USAGE, "usage", "%s is '%s', not a number of at least %ld", option, text, least);
    return value;
}

static const Runtime *runtime_named(const char *name) {
    const Runtime *all[] = {&litert, &onnxruntime, &mnn};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    fail(EXIT_USAGE, "usage", "--backend is '%s'; known: litert, onnxruntime, mnn", name);
}

static void add(const char **files, int *count, const char *file, const char *option) {
    if (*count == MAX_TENSORS)
        fail(EXIT_USAGE, "usage", "more than %d times %s", MAX_TENSORS, option);
    files[(*count)++] = file;
}

static Options options_of(int argc, char **argv) {
    Options o = {.threads = 1};
    for (int i = 1; i < argc; i += 2) {
        const char *key = argv[i], *value = argv[i + 1];
        if (!value)
            fail(EXIT_USAGE, "usage", "'%s' stands without a value", key);
        if (strcmp(key, "--backend") == 0)
            o.runtime = runtime_named(value);
        else if (strcmp(key, "--library") == 0)
            add(o.libraries, &o.library_count, value, key);
        else if (strcmp(key, "--model") == 0)
            o.model = value;
        else if (strcmp(key, "--in") == 0)
            add(o.in, &o.in_count, value, key);
        else if (strcmp(key, "--out") == 0)
            add(o.out, &o.out_count, value, key);
        else if (strcmp(key, "--cores") == 0)
            o.cores = value;
        else if (strcmp(key, "--profile-out") == 0)
            o.profile = value;
        else if (strcmp(key, "--warmup") == 0)
            o.warmup = number(key, value, 0);
        else if (strcmp(key, "--runs") == 0)
            o.runs = number(key, value, 0);
        else if (strcmp(key, "--threads") == 0)
            o.threads = number(key, value, 1);
        else if (strcmp(key, "--limit-ms") == 0)
            o.limit_ms = number(key, value, 0);
        else if (strcmp(key, "--time-sample") == 0)
            o.time_sample = number(key, value, 0);
        else
            fail(EXIT_USAGE, "usage", "unknown option '%s'", key);
    }
    if (!o.runtime || !o.library_count || !o.model || !o.in_count)
        fail(EXIT_USAGE, "usage", "--backend, --library, --model and --in are needed");
    return o;
}

/* A list as "0-3,6", or a mask as "0xf". */
static void pin(const char *cores) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (strncmp(cores, "0x", 2) == 0) {
        char *end;
        unsigned long long mask = strtoull(cores, &end, 16);
        if (*end || !mask)
            fail(EXIT_USAGE, "usage", "--cores is '%s', neither a list as 0-3 nor a mask as 0xf", cores);
        for (int core = 0; core < 64; core++)
            if (mask >> core & 1)
                CPU_SET(core, &set);
    } else {
        const char *at = cores;
        for (;;) {
            char *end;
            long first = strtol(at, &end, 10), last = first;
            int bad = end == at;
            if (!bad && *end == '-') {
                at = end + 1;
                last = strtol(at, &end, 10);
                bad = end == at;
            }
            if (bad || first < 0 || last < first || last >= CPU_SETSIZE || (*end && *end != ','))
                fail(EXIT_USAGE, "usage", "--cores is '%s', neither a list as 0-3 nor a mask as 0xf", cores);
            for (long core = first; core <= last; core++)
                CPU_SET((int)core, &set);
            if (!*end)
                break;
            at = end + 1;
        }
    }
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        fail(EXIT_USAGE, "usage", "can't run on cores %s: %s", cores, strerror(errno));
}

/* Open the input files; return how many samples every one of them holds. */
static long samples_of(const Options *o, const Tensors *in, int *files) {
    long samples = -1;
    for (int i = 0; i < o->in_count; i++) {
        struct stat facts;
        files[i] = open(o->in[i], O_RDONLY | O_CLOEXEC);
        if (files[i] < 0 || fstat(files[i], &facts) != 0)
            fail(EXIT_IO, "io", "%s: %s", o->in[i], strerror(errno));
        size_t size = (size_t)facts.st_size, bytes = in->bytes[i];
        if (!size || size % bytes)
            fail(EXIT_IO, "io", "%s has %zu bytes, which is no multiple of the input's %zu", o->in[i], size, bytes);
        long here = (long)(size / bytes);
        if (samples >= 0 && here != samples)
            fail(EXIT_IO, "io", "%s holds %ld samples and %s holds %ld", o->in[0], samples, o->in[i], here);
        samples = here;
    }
    if (o->time_sample >= samples)
        fail(EXIT_USAGE, "usage", "--time-sample is %ld, and there are %ld samples", o->time_sample, samples);
    return samples;
}

static void read_sample(const Options *o, const Tensors *in, const int *files, void *const *buffers, long sample) {
    for (int i = 0; i < in->count; i++) {
        size_t done = 0, bytes = in->bytes[i];
        while (done < bytes) {
            ssize_t got =
                pread(files[i], (char *)buffers[i] + done, bytes - done, (off_t)((size_t)sample * bytes + done));
            if (got <= 0)
                fail(EXIT_IO, "io", "%s: sample %ld: %s", o->in[i], sample, got ? strerror(errno) : "the file ended");
            done += (size_t)got;
        }
    }
}

static void feed(const Options *o, const Tensors *in, void *const *buffers) {
    for (int i = 0; i < in->count; i++)
        o->runtime->write(i, buffers[i]);
}

static void run_samples(
    const Options *o, const Tensors *in, const Tensors *out, const int *files, void *const *buffers, long samples) {
    FILE *results[MAX_TENSORS];
    void *outputs[MAX_TENSORS];
    for (int i = 0; i < o->out_count; i++) {
        unlink(o->out[i]); /* the name may be a link to a file that others share */
        results[i] = fopen(o->out[i], "wb");
        if (!results[i])
            fail(EXIT_IO, "io", "%s: %s", o->out[i], strerror(errno));
        outputs[i] = aligned_memory(out->bytes[i]);
    }
    for (long sample = 0; sample < samples; sample++) {
        read_sample(o, in, files, buffers, sample);
        feed(o, in, buffers);
        o->runtime->invoke();
        for (int i = 0; i < o->out_count; i++) {
            o->runtime->read(i, outputs[i]);
            if (fwrite(outputs[i], 1, out->bytes[i], results[i]) != out->bytes[i])
                fail(EXIT_IO, "io", "%s: %s", o->out[i], strerror(errno));
        }
    }
    for (int i = 0; i < o->out_count; i++)
        if (fclose(results[i]) != 0)
            fail(EXIT_IO, "io", "%s: %s", o->out[i], strerror(errno));
}

static void make_room(Times *times, size_t room) {
    times->room = room;
    times->ns = realloc(times->ns, room * sizeof *times->ns);
    if (!times->ns)
        fail(EXIT_RUN, "run", "no memory for %zu times", room);
}

static void keep(Times *times, uint64_t ns) {
    if (times->count == times->room)
        make_room(times, 2 * times->room);
    times->ns[times->count++] = ns;
}

static void time_runs(const Options *o, const Tensors *in, void *const *buffers, Times *times) {
    /* Before the warm-up: a runtime that allocates in each run takes another path through malloc after we have. */
    make_room(times, o->runs > 1024 ? (size_t)o->runs : 1024);
    for (long i = 0; i < o->warmup; i++) {
        feed(o, in, buffers);
        o->runtime->invoke();
    }
    const char *wanted = getenv("MKD_MARK");
    int mark = wanted && strcmp(wanted, "1") == 0;
    if (o->profile)
        o->runtime->profile_from();
    uint64_t limit_ns = (uint64_t)o->limit_ms * 1000000u, started = now_ns(CLOCK_MONOTONIC);
    for (long rep = 0; rep < o->runs || (o->limit_ms && now_ns(CLOCK_MONOTONIC) - started < limit_ns); rep++) {
        feed(o, in, buffers);
        uint64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID), begin = now_ns(CLOCK_MONOTONIC);
        if (mark)
            syscall(MARK_SYSCALL, MARK_BEGIN, rep);
        o->runtime->invoke();
        if (mark)
            syscall(MARK_SYSCALL, MARK_END, rep);
        uint64_t end = now_ns(CLOCK_MONOTONIC);
        times->cpu_ns += now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        keep(times, end - begin);
    }
    if (o->profile)
        o->runtime->profile_to(o->profile);
}

static void print_sizes(const char *key, const Tensors *tensors) {
    fprintf(answer, ",\"%s\":[", key);
    for (int i = 0; i < tensors->count; i++)
        fprintf(answer, "%s%zu", i ? "," : "", tensors->bytes[i]);
    fputc(']', answer);
}

int main(int argc, char **argv) {
    int first = dup(STDOUT_FILENO);
    answer = first < 0 ? NULL : fdopen(first, "w");
    if (!answer || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        _exit(EXIT_IO);
    Options o = options_of(argc, argv);
    const char *clock = getenv("MKD_CLOCK");
    if (clock && (clock_file = open(clock, O_RDONLY | O_CLOEXEC)) < 0)
        fail(EXIT_IO, "io", "%s: %s", clock, strerror(errno));
    if (o.cores)
        pin(o.cores);
    Tensors in = {0}, out = {0};
    int files[MAX_TENSORS];
    void *buffers[MAX_TENSORS];
    for (int i = 0; i + 1 < o.library_count; i++)
        open_library(o.libraries[i]);
    o.runtime->open(o.libraries[o.library_count - 1]);
    if (access(o.model, R_OK) != 0)
        fail(EXIT_IO, "io", "%s: %s", o.model, strerror(errno));
    if (o.profile)
        o.runtime->profile();
    long before_kb = resident_kb();
    uint64_t started = now_ns(CLOCK_MONOTONIC);
    o.runtime->load(o.model, (int)o.threads, &in, &out);
    uint64_t load_ns = now_ns(CLOCK_MONOTONIC) - started;
    if (o.in_count != in.count)
        fail(EXIT_USAGE, "usage", "the model has %d inputs, and --in stands %d times", in.count, o.in_count);
    if (o.out_count && o.out_count != out.count)
        fail(EXIT_USAGE, "usage", "the model has %d outputs, and --out stands %d times", out.count, o.out_count);
    long samples = samples_of(&o, &in, files);
    for (int i = 0; i < in.count; i++)
        buffers[i] = aligned_memory(in.bytes[i]);
    if (o.out_count)
        run_samples(&o, &in, &out, files, buffers, samples);
    Times times = {0};
    read_sample(&o, &in, files, buffers, o.time_sample);
    time_runs(&o, &in, buffers, &times);

    struct utsname system;
    uname(&system);
    fprintf(answer, "{\"ok\":true,\"protocol\":%d,\"backend\":\"%s\",\"machine\":", PROTOCOL, o.runtime->name);
    print_string(answer, system.machine);
    if (o.runtime->version()) {
        fputs(",\"runtime_version\":", answer);
        print_string(answer, o.runtime->version());
    }
    fprintf(answer, ",\"load_us\":%llu", (unsigned long long)(load_ns / 1000));
    print_sizes("in_bytes", &in);
    print_sizes("out_bytes", &out);
    fprintf(answer, ",\"samples\":%ld,\"threads\":%ld", o.out_count ? samples : 0, o.threads);
    fprintf(answer, ",\"cpu_us\":%llu", (unsigned long long)(times.cpu_ns / 1000));
    fprintf(answer, ",\"rss_kb\":[%ld,%ld],\"lat_ns\":[", before_kb, peak_kb());
    for (size_t i = 0; i < times.count; i++)
        fprintf(answer, "%s%llu", i ? "," : "", (unsigned long long)times.ns[i]);
    fputs("]}\n", answer);
    leave(0);
}

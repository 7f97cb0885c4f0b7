/* mkcount: a plug-in of qemu-aarch64 that counts the instructions between two marks, by class.
 *
 * qemu-aarch64 -plugin ./libmkcount.so,out=FILE ... mkdrun ...     (or MKCOUNT_OUT=FILE), with MKD_MARK=1
 *
 * One JSON line for every marked region. An instruction is classified once, when its block is translated; running a
 * block adds its counts, with no call. Blocks end at a system call, so a region is exact: everything after the call
 * that begins it, up to the call that ends it. Additions are not atomic: the guest must have one thread.
 *
 * With clock=FILE (or MKCOUNT_CLOCK), a third mark writes the instructions so far into that file, 8 bytes, for a guest
 * whose clock they are.
 *
 * The declarations are those of version 1 of qemu's plug-in API (docs/devel/tcg-plugins), of which Debian has no header.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t Id;
typedef struct qemu_plugin_tb Block;
typedef struct qemu_plugin_insn Instruction;

typedef struct {
    const char *target;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
    struct {
        int cpus, max_cpus;
    } system;
} Info;

typedef void OnBlock(Id id, Block *block);
typedef void OnSyscall(Id id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);

extern void qemu_plugin_register_vcpu_tb_trans_cb(Id id, OnBlock *callback);
extern void qemu_plugin_register_vcpu_syscall_cb(Id id, OnSyscall *callback);
extern void qemu_plugin_register_vcpu_tb_exec_inline(Block *block, int operation, void *counter, uint64_t add);
extern size_t qemu_plugin_tb_n_insns(const Block *block);
extern Instruction *qemu_plugin_tb_get_insn(const Block *block, size_t index);
extern const void *qemu_plugin_insn_data(const Instruction *instruction);

enum { INLINE_ADD = 0, MARK_SYSCALL = 0x4d4b44, MARK_BEGIN = 1, MARK_END = 2, MARK_CLOCK = 3 };
enum { LOAD, STORE, SIMD, DOT, I8MM, BRANCH, OTHER, CLASSES };

static const char *const names[CLASSES] = {"loads", "stores", "simd", "dot_product", "i8mm", "branches", "other"};

EXPORT int qemu_plugin_version = 1;
static uint64_t counts[CLASSES], begun[CLASSES];
static FILE *out;
static int clock_file = -1;

static bool is(uint32_t word, uint32_t mask, uint32_t value) { return (word & mask) == value; }

/* Instructions that read or write memory; bits 27 and 25 are 1 and 0. Atomic read-modify-writes count as stores. */
static int memory_class(uint32_t word) {
    if (is(word, 0x3b000000, 0x18000000)) /* load from a literal */
        return LOAD;
    if (is(word, 0x3a000000, 0x38000000)) { /* one register */
        if (is(word, 0x3f200c00, 0x38200000))
            return STORE; /* LDADD, SWP and the like */
        if (is(word, 0xffc00000, 0xf9800000) || is(word, 0xffe00000, 0xf8a00000))
            return OTHER; /* PRFM */
        bool vector = word >> 26 & 1;
        unsigned opc = word >> 22 & 3;
        return (vector ? opc & 1 : opc != 0) ? LOAD : STORE;
    }
    return word >> 22 & 1 ? LOAD : STORE; /* pairs, exclusives, structures */
}

/* SIMD and floating point; bits 27 to 25 are 111. */
static int vector_class(uint32_t word) {
    bool dot = is(word, 0x9fe0fc00, 0x0e809400)     /* SDOT, UDOT */
               || is(word, 0x9fc0f400, 0x0f80e000)  /* the same, by element */
               || is(word, 0xbfe0fc00, 0x0e809c00)  /* USDOT */
               || is(word, 0xbf40f400, 0x0f00f000); /* SUDOT, USDOT by element */
    if (dot)
        return DOT;
    bool product = is(word, 0xdfe0fc00, 0x4e80a400)     /* SMMLA, UMMLA */
                   || is(word, 0xffe0fc00, 0x4e80ac00); /* USMMLA */
    return product ? I8MM : SIMD;
}

static int sve_class(uint32_t word) {
    if (word >> 31)
        return word >> 29 == 7 ? STORE : LOAD;
    if (is(word, 0xff80f800, 0x44800000) || is(word, 0xffa0f800, 0x44a00000))
        return DOT;
    return is(word, 0xff20fc00, 0x45009800) ? I8MM : SIMD;
}

static int class_of(uint32_t word) {
    if (is(word, 0x7c000000, 0x14000000)     /* B, BL */
        || is(word, 0x7c000000, 0x34000000)  /* CBZ, TBZ */
        || is(word, 0xfe000000, 0x54000000)  /* B.cond */
        || is(word, 0xfe000000, 0xd6000000)) /* BR, BLR, RET */
        return BRANCH;
    if (is(word, 0x0a000000, 0x08000000))
        return memory_class(word);
    if (is(word, 0x0e000000, 0x0e000000))
        return vector_class(word);
    if (is(word, 0x1e000000, 0x04000000))
        return sve_class(word);
    return OTHER;
}

static void on_block(Id id, Block *block) {
    uint64_t found[CLASSES] = {0};
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        found[class_of(word)]++;
    }
    for (int i = 0; i < CLASSES; i++)
        if (found[i])
            qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD, &counts[i], found[i]);
}

static void write_clock(void) {
    uint64_t total = 0;
    for (int i = 0; i < CLASSES; i++)
        total += counts[i];
    if (clock_file >= 0 && pwrite(clock_file, &total, sizeof total, 0) != sizeof total)
        abort();
}

static void on_syscall(Id id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)cpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != MARK_SYSCALL)
        return;
    if (a1 == MARK_BEGIN) {
        memcpy(begun, counts, sizeof begun);
        return;
    }
    if (a1 == MARK_CLOCK)
        write_clock();
    if (a1 != MARK_END)
        return;
    uint64_t total = 0;
    for (int i = 0; i < CLASSES; i++)
        total += counts[i] - begun[i];
    fprintf(out, "{\"region\":%" PRIu64 ",\"total\":%" PRIu64, a2, total);
    for (int i = 0; i < CLASSES; i++)
        fprintf(out, ",\"%s\":%" PRIu64, names[i], counts[i] - begun[i]);
    fputs("}\n", out);
    fflush(out);
}

EXPORT int qemu_plugin_install(Id id, const Info *info, int argc, char **argv);
EXPORT int qemu_plugin_install(Id id, const Info *info, int argc, char **argv) {
    const char *file = getenv("MKCOUNT_OUT"), *clock = getenv("MKCOUNT_CLOCK");
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            file = argv[i] + 4;
        else if (strncmp(argv[i], "clock=", 6) == 0)
            clock = argv[i] + 6;
    if (!file || strcmp(info->target, "aarch64") != 0) {
        fprintf(stderr, "mkcount: needs an aarch64 guest and out=FILE\n");
        return -1;
    }
    out = fopen(file, "w");
    if (!out) {
        perror(file);
        return -1;
    }
    if (clock) {
        clock_file = open(clock, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (clock_file < 0) {
            perror(clock);
            return -1;
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}

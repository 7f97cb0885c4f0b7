/* What python_stubs.c needs of mkdrun.c, in a program without it. */
#include "mkdrun.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void fail(int code, const char *stage, const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    fprintf(stderr, "%s: ", stage);
    vfprintf(stderr, format, rest);
    va_end(rest);
    exit(code);
}

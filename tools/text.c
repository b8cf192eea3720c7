/*
 * Text in and out of the command: messages, numbers, and names of files, which may hold any byte but '/' and NUL.
 *
 * Names meet two dangers: control characters that steer the reader's terminal or split a line in two, and bytes that
 * are not UTF-8 and make JSON unreadable. Both printers walk the text by characters as utf8_length() finds them.
 */
#include "command.h"

#include <stdarg.h>
#include <string.h>

void complain(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    flockfile(stderr);
    fputs("ringpool ", stderr);
    vfprintf(stderr, fmt, args);
    putc('\n', stderr);
    funlockfile(stderr);
    va_end(args);
}

int complain_rc(const char *what, int rc)
{
    complain("%s: %s", what, rp_strerror(rc));
    return STATUS_FAILED;
}

bool parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *value)
{
    uint64_t number = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, *text - '0', &number))
            return false;
    }
    if (number < least || number > most)
        return false;
    *value = number;
    return true;
}

/* Bytes of the well-formed UTF-8 character at s, by table 3-7 of the Unicode standard; 0 if there is none. */
static size_t utf8_length(const unsigned char *s)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t length;

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    length = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] == 0xe0)
        low = 0xa0; /* else it is longer than it need be */
    else if (s[0] == 0xed)
        high = 0x9f; /* surrogates */
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f; /* beyond U+10FFFF */
    if (s[1] < low || s[1] > high)
        return 0;
    /* A NUL is no continuation, so this never reads past the end. */
    for (size_t i = 2; i < length; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return length;
}

/* Bytes of the character at s that a terminal shows as such, 0 if it is a control (C1 too) or no UTF-8. */
static size_t printable_length(const unsigned char *s)
{
    size_t length = utf8_length(s);

    if (length == 1 && (s[0] < 0x20 || s[0] == 0x7f))
        return 0;
    if (length == 2 && s[0] == 0xc2 && s[1] < 0xa0)
        return 0;
    return length;
}

static bool is_plain(const unsigned char *s)
{
    if (!*s)
        return false;
    while (*s) {
        size_t length = printable_length(s);

        if (length == 0 || *s == '"' || *s == '\\')
            return false;
        s += length;
    }
    return true;
}

void print_name(FILE *out, const char *name)
{
    const unsigned char *s = (const unsigned char *)name;

    if (is_plain(s)) {
        fputs(name, out);
        return;
    }
    putc('"', out);
    while (*s) {
        size_t length = printable_length(s);

        if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s++);
        else if (*s == '\n' || *s == '\t')
            fprintf(out, "\\%c", *s++ == '\n' ? 'n' : 't');
        else if (length == 0)
            fprintf(out, "\\%03o", *s++);
        else
            s += fwrite(s, 1, length, out) == length ? length : strlen((const char *)s);
    }
    putc('"', out);
}

void print_json_string(FILE *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;

    putc('"', out);
    while (*s) {
        size_t length = utf8_length(s);

        if (length == 0) {
            fputs("\\ufffd", out);
            s++;
        } else if (*s == '"' || *s == '\\') {
            fprintf(out, "\\%c", *s++);
        } else if (*s < 0x20 || *s == 0x7f) {
            fprintf(out, "\\u%04x", *s++);
        } else {
            s += fwrite(s, 1, length, out) == length ? length : strlen((const char *)s);
        }
    }
    putc('"', out);
}

/*
 * A recogniser of JSON (RFC 8259), one function for each rule of the grammar. Each takes the text at its rule and gives
 * what follows, or NULL.
 */
#include "tools/child.h"

#include <ctype.h>
#include <string.h>

static const char *value(const char *s);

static const char *space(const char *s)
{
    return s + strspn(s, " \t\r\n");
}

static const char *escape(const char *s)
{
    if (*s == 'u') {
        for (int i = 1; i <= 4; i++)
            if (!isxdigit((unsigned char)s[i]))
                return NULL;
        return s + 5;
    }
    return *s && strchr("\"\\/bfnrt", *s) ? s + 1 : NULL;
}

/* The lead byte says how many follow; overlong forms and surrogates are refused by their second byte. */
static const char *utf8(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    int more = s[0] < 0x80 ? 0 : s[0] < 0xe0 ? 1 : s[0] < 0xf0 ? 2 : 3;

    if ((s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4)
        return NULL;
    for (int i = 1; i <= more; i++)
        if ((s[i] & 0xc0) != 0x80)
            return NULL;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return NULL;
    return text + more + 1;
}

static const char *string(const char *s)
{
    if (!s || *s++ != '"')
        return NULL;
    while (s && *s != '"') {
        if ((unsigned char)*s < 0x20)
            return NULL;
        s = *s == '\\' ? escape(s + 1) : utf8(s);
    }
    return s ? s + 1 : NULL;
}

static const char *digits(const char *s)
{
    size_t n = s ? strspn(s, "0123456789") : 0;

    return n ? s + n : NULL;
}

static const char *number(const char *s)
{
    s += *s == '-';
    s = *s == '0' ? s + 1 : digits(s);
    if (s && *s == '.')
        s = digits(s + 1);
    if (s && (*s == 'e' || *s == 'E'))
        s = digits(s + 1 + (s[1] == '+' || s[1] == '-'));
    return s;
}

static const char *member(const char *s)
{
    s = string(space(s));
    if (!s || *(s = space(s)) != ':')
        return NULL;
    return value(s + 1);
}

static const char *sequence(const char *s, char end, const char *(*element)(const char *))
{
    if (*space(s) == end)
        return space(s) + 1;
    for (;;) {
        s = element(s);
        if (!s)
            return NULL;
        s = space(s);
        if (*s == end)
            return s + 1;
        if (*s++ != ',')
            return NULL;
    }
}

static const char *value(const char *s)
{
    static const char *const words[] = {"true", "false", "null"};

    s = space(s);
    if (*s == '{')
        return sequence(s + 1, '}', member);
    if (*s == '[')
        return sequence(s + 1, ']', value);
    if (*s == '"')
        return string(s);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strncmp(s, words[i], strlen(words[i])) == 0)
            return s + strlen(words[i]);
    return number(s);
}

bool is_json(const char *text)
{
    const char *end = value(text);

    return end && *space(end) == '\0';
}

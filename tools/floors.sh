#!/bin/sh
# Holds the architecture: prints a line per violation and fails if there is one.
#
#  - A file under src/ or include/ includes its own floor and those beneath, never above, and no includes form a cycle.
#  - tools/, bench/ and tests/ use the public headers; tests/FLOOR may include that floor and those beneath as well, tests/model what the
#    pool may.
#  - The futex system call is named in one file. The library has no condition variable or semaphore, does not end the
#    process, prints nothing, reads no environment and no wall clock, and has no constructor. Only panic.c installs
#    signal handlers (for contain_signals). What objects are made of comes from base/alloc alone (handle.c: handles
#    outlive every object).
#
# What stands in comments and strings does not count. Works on the tree in the current folder with sh and awk alone.
set -eu

files=$(find include src tools bench tests -name '*.[ch]' 2>/dev/null | sort)
[ -n "$files" ] || { echo "floors: no files here" >&2; exit 1; }

# shellcheck disable=SC2086 # one word per file
exec awk '
BEGIN {
    n = split("base ring pool flow watch dist", names, " ")
    for (i = 1; i <= n; i++) level[names[i]] = i
    # Which floor a public header is of; the one that includes all is above all.
    n = split("base:base histogram:base lock:base task:pool pool:pool multi:pool context:pool future:pool group:pool retry:pool completion:pool timer:pool strand:pool metrics:watch", owned, " ")
    for (i = 1; i <= n; i++) { split(owned[i], of, ":"); level["ringpool/" of[1] ".h"] = level[of[2]] }
    level["ringpool.h"] = 99
    outlaws = "abort exit _exit _Exit quick_exit printf vprintf fprintf vfprintf dprintf vdprintf puts fputs putc fputc" \
        " putchar perror psignal"
    n = split(outlaws, words, " ")
    for (i = 1; i <= n; i++) outlaw[words[i]] = 1
    n = split("getenv secure_getenv setenv unsetenv putenv time gettimeofday signal sigaction", words, " ")
    for (i = 1; i <= n; i++) hidden[words[i]] = 1
    n = split("malloc calloc realloc reallocarray strdup strndup asprintf vasprintf aligned_alloc posix_memalign", words, " ")
    for (i = 1; i <= n; i++) allocator[words[i]] = 1
}

function complain(text) { print FILENAME ":" FNR ": " text; bad++ }

# The line without comments and strings; `inside` carries an open comment over to the next line.
function bare(line,    out, end) {
    out = ""
    while (line != "") {
        if (inside) {
            end = index(line, "*/")
            if (!end) return out
            line = substr(line, end + 2); inside = 0; out = out " "
        } else if (match(line, /"([^"\\]|\\.)*"|\047([^\047\\]|\\.)*\047|\/\*|\/\//)) {
            out = out substr(line, 1, RSTART - 1)
            end = substr(line, RSTART, 2)
            if (end == "//") return out
            if (end == "/*") inside = 1; else out = out " 0 "
            line = substr(line, RSTART + RLENGTH)
        } else return out line
    }
    return out
}

function exists(path,    line, rc) {
    if (!(path in known)) {
        known[path] = (getline line < path) >= 0
        close(path)
    }
    return known[path]
}

function include(name, quoted,    to) {
    if (!quoted && name !~ /^ringpool(\.h$|\/)/) return
    to = quoted ? "src/" name : "include/" name
    if (mode == "outside" && quoted) {
        # Their own neighbours, or the helpers of the tests.
        if (exists(folder "/" name) || exists(tree "/" name) || (tree != "tests" && exists("bench/" name)) ||
            (tree != "tests" && exists("tools/" name))) return
        if (!own) { complain("\"" name "\": " tree " uses the public headers only"); return }
    }
    if (!exists(to)) { complain((quoted ? "\"" name "\"" : "<" name ">") ": no such file below " (quoted ? "src" : "include")); return }
    if (mode != "outside") edges[FILENAME] = edges[FILENAME] " " to
    if (!own || (!quoted && mode == "outside")) return
    floor = quoted ? level[substr(name, 1, index(name, "/") - 1)] : level[name]
    if (!floor) complain(name ": give it a floor in tools/floors.sh")
    else if (floor > own) complain(name " is above this file\047s floor")
}

FNR == 1 {
    count++
    order[count] = FILENAME
    inside = 0
    parts = split(FILENAME, path, "/")
    tree = path[1]
    folder = FILENAME; sub(/\/[^\/]*$/, "", folder)
    mode = tree == "src" || tree == "include" ? tree : "outside"
    own = 0
    if (tree == "include") { own = level[substr(FILENAME, 9)]; if (!own) complain("give this header a floor in tools/floors.sh") }
    else if (parts > 2 && (tree == "src" || tree == "tests")) own = level[path[2]]
    if (tree == "tests" && path[2] == "model") own = level["pool"] # the sources of the pool under its own scheduler
    if (tree == "src" && !own) complain("lies on no floor")
}

!inside && /^[ \t]*#[ \t]*include[ \t]*[<"]/ {
    name = $0
    quoted = name ~ /^[^<]*"/
    sub(/^[^<"]*[<"]/, "", name); sub(/[>"].*/, "", name)
    include(name, quoted)
    next
}

{
    line = bare($0)
    if (mode != "src") next
    if (line ~ /(SYS|__NR)_futex/ && !(FILENAME in futex)) { futex[FILENAME] = 1; futexes++; where = where " " FILENAME }
    while (match(line, /[A-Za-z_][A-Za-z0-9_]*/)) {
        word = substr(line, RSTART, RLENGTH)
        line = substr(line, RSTART + RLENGTH)
        if (word ~ /^pthread_cond|^sem_(init|open|wait|trywait|timedwait|clockwait|post|destroy)$|^sem_t$/)
            complain(word ": the library waits on futexes and rings only")
        else if (word in outlaw && line ~ /^[ \t]*\(/)
            complain(word "(): the library returns errors and logs")
        else if (word ~ /^(CLOCK_REALTIME|CLOCK_TAI|constructor|destructor)/ || (word in hidden && line ~ /^[ \t]*\(/ &&
                 !(word == "sigaction" && FILENAME == "src/pool/panic.c")))
            complain(word ": the library has no environment, wall clock, constructor or signal handler")
        else if (word in allocator && own >= level["pool"] && line ~ /^[ \t]*\(/ && FILENAME != "src/pool/handle.c")
            complain(word "(): objects take their memory from base/alloc.h, and so from the hook of the user\047s")
    }
}

# Depth first; a file met again on the way down closes a cycle. Each is reported once, from where it was entered.
function visit(file, way,    list, m, k) {
    if (state[file] == 2) return
    if (state[file] == 1) { sub("^.*" file " -> ", file " -> ", way); print "cycle: " way file; bad++; return }
    state[file] = 1
    m = split(edges[file], list, " ")
    for (k = 1; k <= m; k++) visit(list[k], way file " -> ")
    state[file] = 2
}

END {
    for (i = 1; i <= count; i++) visit(order[i], "")
    if (futexes > 1) { print "SYS_futex in " futexes " files:" where; bad++ }
    if (bad) exit 1
    print "floors: " count " files, no violation"
}' $files

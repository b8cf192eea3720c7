#!/bin/sh
# Fails the Nth system call of a pool's life, for every call and error of the table below; used by the Makefile, which
# passes BUILD.
#
#   tests/fault/run.sh all                  every N from 1 to the last
#   tests/fault/run.sh some [SEED]          about CASES (700) of them, evenly spread; SEED says which, else it is random
#
# A clean run counts the calls first. A case is one life of the subject (tests/fault/subject.c) under the supervisor
# (tests/fault/supervisor.c) with one fault: once at the Nth call, or lasting from the Nth call on. It must end within
# LIMIT seconds, and well: what that is the subject says. JOBS cases run at once; ONLY names one setting or call of the table. Each case that fails is printed with
# the command that repeats it; the last line counts. The number of calls differs a little from run to run: a case whose
# N was not reached counts as "not reached".
set -eu

BUILD=${BUILD:-build}
LIMIT=${LIMIT:-20}
JOBS=${JOBS:-$(nproc)}
CASES=${CASES:-700}
ONLY=${ONLY:-}
supervisor=$BUILD/tests/fault_supervisor
subject=$BUILD/tests/fault_subject
out=$BUILD/tests/fault

# What is set for the whole life beside the fault of the case: ways that the library takes only where something is
# missing. For `table`, one word without blanks.
setting_of() {
    case $1 in
    plain | jobs) ;;
    old_clone) echo '--fail clone3:ENOSYS:1-' ;;          # glibc makes threads by clone
    no_pwait2) echo '--fail epoll_pwait2:ENOSYS:1-' ;;    # a timerfd beside epoll
    no_descriptor) echo '--fail eventfd2:EMFILE:1-' ;;    # sleeps on a futex
    broken_ring) echo '--fail io_uring_enter:EPERM:4-' ;; # granted at first, denied by a filter that came later
    multi) ;;
    esac
}

# The life of a setting: that of tests/fault/jobs.c, of multi pools, or of pools.
life_of() {
    case $1 in
    jobs*) echo --jobs ;;
    multi) echo --multi ;;
    esac
}

# setting, backends, call, errors, ways (o: once, l: lasting). Backends: auto takes io_uring where it is granted.
# io_uring by name differs only in how its refusal is told.
#
# The errors are those of the manual pages, and EPERM for calls that filters are known to deny. Left out are
#  - those about arguments that the library and glibc never pass (EBADF, EFAULT, EINVAL and the like), but for
#    io_uring_enter and where EINVAL is what an older kernel says;
#  - clone3: EACCES, EBUSY, EEXIST, EOPNOTSUPP, ENOSPC, EUSERS are about cgroups, chosen ids and namespaces. ENOSYS lasts:
#    glibc does not ask again;
#  - mmap: EAGAIN and EPERM that last, and once where workers make threads (jobs): glibc asserts in pthread_create that
#    its own malloc failed by ENOMEM (allocatestack.c), and ends the process. EAGAIN is the kernel's word only after
#    mlockall. What is about files and fixed addresses (EACCES, ENFILE, ENODEV, EEXIST, ETXTBSY, EOVERFLOW);
#  - futex: FUTEX_WAKE on a private word cannot fail. FUTEX_WAIT cannot time out without a timeout, nor before it;
#    EFAULT, EINVAL, ENOSYS cannot be for a mapped, aligned word; all else is about other operations. SPURIOUS is a
#    wait that returns 0 without cause, as the manual page warns;
#  - write of a bell: EAGAIN would mean that it rings already. Lasting EINTR is no kernel's; the same for read;
#  - close: the descriptor is closed whatever it returns, so that an answer in its place would only make a leak;
#  - sched_yield and sched_getcpu cannot fail;
#  - membarrier and the mappings of liburcu: see `known` below.
table='
plain          auto,epoll          clone3              EAGAIN,ENOMEM,EPERM                       ol
plain          auto                clone3              ENOSYS                                    o
plain          auto,epoll          mmap                ENOMEM                                    ol
plain          auto,epoll          mmap                EAGAIN,EPERM                              o
plain          auto,epoll          munmap              ENOMEM                                    ol
plain          auto,epoll          mprotect            ENOMEM,EACCES                             ol
plain          auto,epoll          madvise             EAGAIN,ENOMEM,EINVAL,EPERM                ol
plain          auto,io_uring       io_uring_setup      EPERM,EMFILE,ENFILE,ENOMEM,EINVAL,ENOSYS  ol
plain          auto,io_uring       io_uring_enter      EAGAIN,EBADF,EBADFD,EBADR,EBUSY,EEXIST,EFAULT,EINTR,EINVAL,ENOMEM,ENXIO,EOPNOTSUPP,EPERM,ENOSYS o
plain          auto                io_uring_enter      EAGAIN,EBUSY,EINVAL,ENOMEM,ENOSYS,EPERM   l
plain          auto,io_uring,epoll eventfd2            EMFILE,ENFILE,ENODEV,ENOMEM,EINVAL        ol
plain          auto,epoll          futex_wait          EINTR,EAGAIN,SPURIOUS                     o
plain          epoll               futex_wait          EINTR                                     l
plain          epoll               epoll_create1       EMFILE,ENFILE,ENOMEM,EINVAL               ol
plain          epoll               epoll_ctl           ENOMEM,ENOSPC,EPERM                       ol
plain          epoll               epoll_pwait2        EINTR,ENOSYS,EPERM,EINVAL                 ol
plain          auto,epoll          sched_setscheduler  EPERM,EINVAL                              ol
plain          auto,epoll          sched_setaffinity   EPERM,EINVAL                              ol
plain          auto,epoll          sched_getaffinity   EPERM,EINVAL                              ol
plain          auto,epoll          sigaltstack         ENOMEM,EPERM                              ol
plain          auto,epoll          read                EINTR,EAGAIN                              o
plain          auto,epoll          write               EINTR                                     o
plain          auto,epoll          openat              EMFILE,ENFILE,ENOMEM,EACCES,ENOENT         ol
plain          auto,epoll          newfstatat          EACCES,ENOMEM,ENOENT                      ol
old_clone      auto                clone               EAGAIN,ENOMEM,EPERM                       ol
no_pwait2      epoll               timerfd_create      EMFILE,ENFILE,ENODEV,ENOMEM,EPERM,EINVAL  ol
no_pwait2      epoll               timerfd_settime     EPERM                                     ol
no_pwait2      epoll               epoll_ctl           ENOMEM,ENOSPC,EPERM                       ol
no_pwait2      epoll               epoll_wait          EINTR,EPERM                               o
no_pwait2      epoll               epoll_wait          EPERM                                     l
no_pwait2      epoll               epoll_pwait         EINTR,EPERM                               o
no_descriptor  epoll               futex_wait          EINTR,SPURIOUS                            o
broken_ring    auto                ppoll               EINTR,ENOMEM                              o
broken_ring    auto                ppoll               ENOMEM                                    l
multi          auto,epoll          clone3              EAGAIN                                    ol
multi          auto                mmap                ENOMEM                                    ol
multi          auto                mprotect            ENOMEM                                    ol
multi          auto                io_uring_setup      EMFILE,ENOMEM                             ol
multi          epoll               epoll_create1       EMFILE                                    ol
multi          auto,epoll          eventfd2            EMFILE                                    ol
multi          auto,epoll          futex_wait          EINTR,SPURIOUS                            o
multi          epoll               futex_wait          EINTR                                     l
multi          auto                hook                ENOMEM                                    ol
multi          auto                malloc              ENOMEM                                    ol
plain          auto,epoll          hook                ENOMEM                                    ol
plain          auto,epoll          malloc              ENOMEM                                    ol
jobs           auto,epoll          hook                ENOMEM                                    ol
jobs           auto,epoll          malloc              ENOMEM                                    ol
jobs           auto,epoll          clone3              EAGAIN,ENOMEM,EPERM                       ol
jobs           auto,epoll          mmap                ENOMEM                                    ol
jobs           auto,epoll          munmap              ENOMEM                                    ol
jobs           auto,epoll          mprotect            ENOMEM,EACCES                             ol
jobs           auto,epoll          madvise             EAGAIN,ENOMEM,EINVAL,EPERM                ol
jobs           auto                io_uring_setup      EPERM,EMFILE,ENFILE,ENOMEM,EINVAL,ENOSYS  ol
jobs           auto                io_uring_enter      EAGAIN,EBUSY,EINTR,EINVAL,ENOMEM,EPERM    o
jobs           auto                io_uring_register   EINVAL,EPERM,ENOMEM,ENOSYS                ol
jobs           auto,epoll          eventfd2            EMFILE,ENFILE,ENODEV,ENOMEM,EINVAL        ol
jobs           auto,epoll          futex_wait          EINTR,EAGAIN,SPURIOUS                     o
jobs           epoll               epoll_create1       EMFILE,ENFILE,ENOMEM,EINVAL               ol
jobs           epoll               epoll_ctl           ENOMEM,ENOSPC,EPERM                       ol
jobs           epoll               epoll_pwait2        EINTR,ENOSYS,EPERM                        ol
jobs           auto,epoll          read                EINTR,EAGAIN                              o
jobs           auto,epoll          write               EINTR                                     o
'

# liburcu ends the process in two places, which the library cannot get out of its way, only keep improbable: when a
# mapping for its registry of readers cannot be had (base/rcu.c asks for one such mapping before, so that the failure
# must come between the two), and when membarrier fails after it has worked (the kernel's one cause is an allocation of
# a few bytes, which it does not let fail). Both are shown, not counted.
known='
mmap_liburcu ENOMEM
membarrier   ENOMEM
'

# The command of a case.
command_of() { # setting, backend, call, error, N with its dash
    faults=$(setting_of "$1")
    arguments="--backend $2"
    case $3 in
    hook | malloc) arguments="$arguments --$3 $5" ;;
    *) faults="$faults --fail $3:$4:$5" ;;
    esac
    arguments="$arguments $(life_of "$1")"
    [ "$3" != munmap ] || arguments="$arguments --unmapped"
    case $5 in *-) arguments="$arguments --lasting" ;; esac
    echo "$supervisor --limit $LIMIT $faults $subject $arguments" | tr -s ' '
}

# One case, called below through xargs: a line to $out/results.
if [ "$1" = --case ]; then
    shift
    command=$(command_of "$@")
    rc=0
    said=$($command 2>&1) || rc=$?
    case $rc in
    0) echo met >>"$out/results" ;;
    3) echo unmet >>"$out/results" ;;
    *)
        echo failed >>"$out/results"
        printf 'fault: FAILED with %d: setting %s, backend %s, %s gives %s at %s\n%s\n    again: %s\n' \
            "$rc" "$1" "$2" "$3" "$4" "$5" "$said" "$command"
        ;;
    esac
    exit 0
fi

mkdir -p "$out"
rm -f "$out"/*

# How many calls of each name a life makes with a setting and a backend, once per pair.
counts_of() { # setting, backend
    file=$out/counts.$1.$2
    # shellcheck disable=SC2046 # flags are words
    [ -e "$file" ] || "$supervisor" --limit "$LIMIT" --count $(setting_of "$1") "$subject" $(life_of "$1") \
        --backend "$2" --count >"$file" || {
        echo "fault: a clean run failed: setting $1, backend $2" >&2
        rm -f "$file"
        exit 1
    }
    cat "$file"
}

# Cases, one a line, in the table's order, so that every so many-th of them is an even choice.
cases() {
    echo "$table" | while read -r setting backends call errors ways; do
        [ -n "$setting" ] || continue
        [ -z "$ONLY" ] || [ "$ONLY" = "$setting" ] || [ "$ONLY" = "$call" ] || continue
        for backend in $(echo "$backends" | tr , ' '); do
            # By name io_uring is an error where it is not granted, not a case.
            [ "$backend" != io_uring ] || [ -n "$uring" ] || continue
            last=$(counts_of "$setting" "$backend" | awk -v call="$call" '$1 == call { print $2 }')
            if [ "${last:-0}" -eq 0 ]; then
                echo "$setting $backend $call" >>"$out/unused"
                continue
            fi
            for error in $(echo "$errors" | tr , ' '); do
                for dash in $(echo "$ways" | sed 's/o/ once/; s/l/ -/'); do
                    # Some more than were counted: the next run may make more.
                    seq "$((last + last / 8 + 1))" | sed "s/.*/$setting $backend $call $error &${dash#once}/"
                done
            done
        done
    done
}

if why=$("$BUILD/tests/deny_io_uring" --probe); then
    uring=granted
else
    uring=
    echo "fault: this machine grants no io_uring ($why): what would be cases of it run on epoll"
fi
if ! "$supervisor" true 2>/dev/null; then
    echo "fault: SKIPPED: no seccomp user notification here: $("$supervisor" true 2>&1 | tail -1)"
    exit 0
fi

cases >"$out/cases"
case $1 in
all)
    cp "$out/cases" "$out/chosen"
    chosen=all
    ;;
some)
    seed=${2:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
    awk -v seed="$seed" -v n="$CASES" -v total="$(wc -l <"$out/cases")" '
        BEGIN { stride = int(total / n) + 1 } NR % stride == seed % stride' "$out/cases" >"$out/chosen"
    chosen="seed $seed"
    ;;
*)
    echo "usage: tests/fault/run.sh all|some [SEED]" >&2
    exit 2
    ;;
esac
printf '  %-7s %d of %d cases (%s)\n' FAULT "$(wc -l <"$out/chosen")" "$(wc -l <"$out/cases")" "$chosen"
[ ! -e "$out/unused" ] || sed 's/\(.*\) \(.*\) \(.*\)/    no case: \3 is not called (setting \1, backend \2)/' "$out/unused"

: >"$out/results"
xargs -P "$JOBS" -L 1 "$0" --case <"$out/chosen"

echo "$known" | while read -r call error; do
    [ -n "$call" ] || continue
    rc=0
    "$supervisor" --limit "$LIMIT" --fail "$call:$error:1" "$subject" >/dev/null 2>&1 || rc=$?
    case $rc in
    134) echo "    known: liburcu ends the process when $call gives $error" ;;
    *) echo "    known no more: $call may give $error (status $rc): make it a case" ;;
    esac
done

met=$(grep -c '^met$' "$out/results" || :)
unmet=$(grep -c '^unmet$' "$out/results" || :)
failed=$(grep -c '^failed$' "$out/results" || :)
printf 'fault: %d cases held, %d failed, %d not reached\n' "$met" "$failed" "$unmet"
[ "$failed" -eq 0 ] && [ "$met" -gt 0 ]

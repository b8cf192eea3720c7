# Sourced: the settings under which a finding of a sanitizer, or of memcheck, makes a test red. Criterion looks at how the
# process of a test ended but not at its exit code, so every finding of a sanitizer aborts; what comes after the verdict (a
# leak), and all that memcheck finds, is in the files of log_path, which must not exist afterwards. The argument is the
# prefix of these files; $checker is what a runner is to be started by.
sanitizer_settings() {
    rm -f "$1".*
    support=$(pwd)/tests/support
    export ASAN_OPTIONS="abort_on_error=1:detect_stack_use_after_return=1:detect_leaks=1:strict_string_checks=1:log_path=$1"
    export LSAN_OPTIONS="report_objects=1"
    export UBSAN_OPTIONS="abort_on_error=1:print_stacktrace=1:log_path=$1"
    export TSAN_OPTIONS="halt_on_error=1:die_after_fork=0:abort_on_error=1:second_deadlock_stack=1:log_path=$1:suppressions=$support/tsan.supp"
    checker=
    if [ -n "${MEMCHECK-}" ]; then
        # Threads run one at a time: fair-sched keeps one that spins from starving those it waits for. Tests are processes
        # that exec, and are checked; a child that only forks is not: what its parent's other threads held is lost there.
        # The pipes of its debugger could not be removed by tests that become another user.
        checker="valgrind --quiet --vgdb=no --fair-sched=yes --max-threads=1600 --trace-children=yes
            --child-silent-after-fork=yes --leak-check=full --show-leak-kinds=definite
            --errors-for-leak-kinds=definite --num-callers=24 --suppressions=$support/memcheck.supp --log-file=$1.%p"
    fi
}

# The reports with that prefix, one a line. memcheck opens a file for each process, and complains there of system calls
# that it does not know, which the library can do without; findings alone have the process in front of each line.
sanitizer_reports() {
    for report in "$1".[0-9]*; do
        [ -e "$report" ] || continue
        [ -z "${MEMCHECK-}" ] || grep -q '^==[0-9]*==' "$report" || continue
        echo "$report"
    done
}

# Sourced: the settings under which a sanitizer's finding makes a test red. Criterion looks at how the process of a
# test ended but not at its exit code, so every finding aborts; what comes after the verdict (a leak) is found in the
# files of log_path, which must not exist afterwards. The argument is the prefix of these files.
sanitizer_settings() {
    rm -f "$1".*
    support=$(pwd)/tests/support
    export ASAN_OPTIONS="abort_on_error=1:detect_stack_use_after_return=1:detect_leaks=1:strict_string_checks=1:log_path=$1"
    export LSAN_OPTIONS="report_objects=1"
    export UBSAN_OPTIONS="abort_on_error=1:print_stacktrace=1:log_path=$1"
    export TSAN_OPTIONS="halt_on_error=1:die_after_fork=0:abort_on_error=1:second_deadlock_stack=1:log_path=$1:suppressions=$support/tsan.supp"
}

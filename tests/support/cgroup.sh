# Control groups for tests, of version 1 or 2; to be sourced. group_make sets $group; groups_remove tidies up.
groups=

# Makes a group under a controller (version 1) or under the one tree (version 2).
group_make() { # controller, file that must be there
    for parent in /sys/fs/cgroup/"$1" /sys/fs/cgroup; do
        group=$parent/ringpool-test-$$-$1
        mkdir "$group" 2>/dev/null || [ -d "$group" ] || continue # made already, when another file was asked for
        groups="$groups $group"
        [ -e "$group/$2" ] && [ -e "$group/cgroup.procs" ] && return 0
    done
    return 1
}

groups_remove() {
    for group in $groups; do rmdir "$group" 2>/dev/null; done
}

# A group with a CPU quota, to be set by quota_set. Fails where there is none to be had.
quota_make() {
    group_make cpu cpu.cfs_quota_us || group_make cpu cpu.max || return 1
    quota_group=$group
    quota_set max
}

# Percent of one CPU, or max.
quota_set() {
    if [ -e "$quota_group/cpu.max" ]; then
        [ "$1" = max ] && echo 'max 100000' >"$quota_group/cpu.max" || echo "$(($1 * 1000)) 100000" >"$quota_group/cpu.max"
    else
        [ "$1" = max ] && echo -1 >"$quota_group/cpu.cfs_quota_us" ||
            { echo 100000 >"$quota_group/cpu.cfs_period_us" && echo $(($1 * 1000)) >"$quota_group/cpu.cfs_quota_us"; }
    fi
}

# Runs a command inside a group: sh -c "$inside" sh GROUP COMMAND... 70: it cannot enter.
inside='echo $$ >"$1/cgroup.procs" || exit 70; shift; exec "$@"'

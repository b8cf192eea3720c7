#!/bin/sh
# Builds one model per mutant and runs each until it is killed; used by `make mutants`, which passes what it built with.
#
#   tests/model/mutants.sh SCHEDULES [NAME...]
#
# A mutant is a patch in tests/model/mutants whose first line says which mistake it is; a second line
# "# scenarios: NAME,..." spends all schedules on those that can show it. It must apply without fuzz to a
# copy of src/; objects that it does not touch are those of the model. Fails if one does not apply, does not compile, or
# survives SCHEDULES schedules.
set -eu

schedules=$1
shift
[ $# -gt 0 ] || set -- $(cd tests/model/mutants && ls ./*.patch | sed 's|^\./||; s|\.patch$||')
work=$BUILD/model/mutants
mkdir -p "$work"
begin=$(date +%s)

# One mutant; the verdict is left in $work/NAME.verdict.
mutant() {
    name=$1
    patch=tests/model/mutants/$name.patch
    dir=$work/$name
    what=$(sed -n '1s/^# *//p' "$patch")
    only=$(sed -n '2s/^# scenarios: */--scenario /p' "$patch")
    rm -rf "$dir"
    mkdir -p "$dir"
    cp -r src "$dir/src"
    if ! patch -d "$dir" -p1 --fuzz=0 --no-backup-if-mismatch -s <"$patch" >"$dir/log" 2>&1; then
        echo "BROKEN    $name: the patch does not apply: $(head -n 1 "$dir/log")"
        return
    fi
    changed=$(sed -n 's|^+++ b/\([^ 	]*\).*|\1|p' "$patch")
    case $changed in *.h*) sources=$MODEL_POOL ;; *) sources=$changed ;; esac
    objects=
    for object in $MODEL_OBJ; do
        source=${object#"$BUILD/model/"}
        source=${source%.o}.c
        case " $(echo $sources) " in
        *" $source "*)
            own=$dir/$(basename "$source" .c).o
            if ! $CC $MODEL_CFLAGS -Wno-error -w -I"$dir/src" $DEPS_CFLAGS -c "$dir/$source" -o "$own" 2>"$dir/log"; then
                echo "BROKEN    $name: $source does not compile: $(head -n 1 "$dir/log")"
                return
            fi
            objects="$objects $own"
            ;;
        *) objects="$objects $object" ;;
        esac
    done
    $CC -g -no-pie $objects -o "$dir/model"
    if timeout 900 "$dir/model" $only --schedules "$schedules" --jobs 1 --first 1 >"$dir/log" 2>&1; then
        echo "SURVIVED  $name: $what"
    else
        why=$(sed -n 's/^VIOLATED *scenario //p' "$dir/log" | head -n 1)
        count=$(sed -n 's/^model: \([0-9]*\) schedules.*/\1/p' "$dir/log")
        printf 'killed    %-28s %8s schedules; %s\n' "$name" "${count:-?}" "${why:-$(tail -n 1 "$dir/log")}"
    fi
}

if [ "${MUTANT_ONE:-}" ]; then
    mutant "$1" >"$work/$1.verdict"
    cat "$work/$1.verdict"
    exit 0
fi
printf '%s\n' "$@" | MUTANT_ONE=1 xargs -P "$(nproc)" -I '{}' "$0" "$schedules" '{}'
total=0
alive=0
for name; do
    total=$((total + 1))
    case $(cat "$work/$name.verdict") in killed*) ;; *) alive=$((alive + 1)) ;; esac
done
echo "mutants: $((total - alive)) of $total killed in $(($(date +%s) - begin)) s"
[ "$alive" -eq 0 ]
